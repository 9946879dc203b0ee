"""Trials from the same start: which rate trains, which fails, and what to try next.

In flow a trainer and a list of trials, each a sequence of rates (``_trials`` makes them). ``_study`` trains them, as
one kind of dry run; ``_plan`` holds what was asked for, ``_file`` what is done already, so that a killed study goes on.
Out flows a frozen ``StudyResult`` (``_result``). What a trial's losses mean is said by pure functions: ``_runs`` (mean
and outcome of repeats), ``_feasible`` (does it train), ``_findings`` (what the Tuning Playbook would ask next).

What must never happen: that two trials start from different places, that a finished trial is lost or run twice, that a
finding says what its numbers do not, or that the training afterwards knows of it.
"""

from ignite_lr.study import _trials as trials
from ignite_lr.study._findings import Finding
from ignite_lr.study._result import StudyResult
from ignite_lr.study._runs import Run, Settings, TrialResult
from ignite_lr.study._study import LRStudy, run_study
from ignite_lr.study._trials import Trial

__all__ = ["Finding", "LRStudy", "Run", "Settings", "StudyResult", "Trial", "TrialResult", "run_study", "trials"]
