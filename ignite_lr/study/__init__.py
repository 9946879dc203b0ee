"""Trials from the same start: which rate trains, which fails, and what to try next.

In come a trainer and a list of trials, out comes a :class:`StudyResult`; the trainer goes on as if there had been
nothing. What a trial is lies in ``_trials``, what its losses mean in ``_runs``, ``_feasible`` and ``_findings``, which
are pure functions; only ``_study`` trains.
"""

from ignite_lr.study import _trials as trials
from ignite_lr.study._findings import Finding
from ignite_lr.study._result import StudyResult
from ignite_lr.study._runs import Run, Settings, TrialResult
from ignite_lr.study._study import LRStudy, run_study
from ignite_lr.study._trials import Trial

__all__ = ["Finding", "LRStudy", "Run", "Settings", "StudyResult", "Trial", "TrialResult", "run_study", "trials"]
