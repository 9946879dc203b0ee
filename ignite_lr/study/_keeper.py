"""The ``file=`` of a study: read when it begins, written whenever a trial is finished.

The first rank reads and writes, and tells the others what came of it, an error too: otherwise they would wait for it
for ever.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import ignite.distributed as idist

from ignite_lr.core.arguments import check_path
from ignite_lr.study._file import read_study, write_study
from ignite_lr.study._plan import StudyPlan
from ignite_lr.study._runs import OUTCOMES, Run, TrialResult, trial_results

__all__ = ["Keeper"]

_ERRORS: dict[str, type[Exception]] = {"ValueError": ValueError, "OSError": OSError}


class Keeper:
    """Keeps the finished trials of a study, in a file if there is one.

    Args:
        plan: of the study.
        path: the file; None: they are kept in memory only.

    Raises:
        OSError: if the file cannot be read or written.
        ValueError: if it is of another study, or of none; says what differs.
    """

    def __init__(self, plan: StudyPlan, path: str | os.PathLike[str] | None) -> None:
        self._plan = plan
        self._path = path
        self._saved: list[tuple[Run, ...]] = []
        if path is not None:
            check_path(path, "file")
            told = _on_first_rank(self._open)
            self._saved = [tuple(_run(*run) for run in runs) for runs in json.loads(told)]
        self.runs: list[tuple[Run, ...]] = []
        self.begin()

    def begin(self) -> None:
        """A run of the engine begins: only what is in the file is finished."""
        self.runs = list(self._saved)

    def finish(self, runs: Sequence[Run]) -> None:
        """A trial is finished, the next one of the plan."""
        self.runs.append(tuple(runs))
        if self._path is not None:
            _on_first_rank(self._write)
            self._saved = list(self.runs)

    def results(self, unfinished: Sequence[Run] = ()) -> tuple[TrialResult, ...]:
        """What became of the finished trials, and of one that was terminated, if there is one."""
        runs = [*self.runs, tuple(unfinished)] if unfinished else self.runs
        plan = self._plan
        return trial_results(plan.trials[: len(runs)], plan.planned[: len(runs)], runs, plan.settings)

    def _open(self) -> str:
        path, plan = self._path, self._plan
        assert path is not None
        if os.path.exists(path):
            saved = read_study(path)
            plan.check_same(repr(os.fspath(path)), saved.settings, saved.plan)
            # what was terminated is not finished
            self.runs = [runs for runs in saved.runs if all(run.outcome != "terminated" for run in runs)]
        else:
            self.runs = []
        self._write()  # now, so that a file that cannot be written is said before hours of training
        return json.dumps([[(run.outcome, run.losses, run.validations) for run in runs] for runs in self.runs])

    def _write(self) -> str:
        assert self._path is not None
        write_study(self._path, self.results(), self._plan.settings, self._plan.as_dict())
        return ""


def _run(outcome: str, losses: Sequence[float], validations: Sequence[Sequence[Any]]) -> Run:
    assert outcome in OUTCOMES
    return Run(outcome, tuple(losses), tuple((update, value) for update, value in validations))


def _on_first_rank(function: Callable[[], str]) -> str:
    """What a function gives or raises on the first rank, given or raised on all."""
    if idist.get_world_size() == 1:
        return function()
    told = ""
    error: Exception | None = None
    if idist.get_rank() == 0:
        try:
            told = json.dumps({"value": function()})
        except (ValueError, OSError) as failure:
            error = failure
            kind = "ValueError" if isinstance(failure, ValueError) else "OSError"
            told = json.dumps({"error": kind, "text": str(failure)})
    heard = json.loads(str(idist.broadcast(told if idist.get_rank() == 0 else None, src=0, safe_mode=True)))
    if error is not None:
        raise error
    if "error" in heard:
        raise _ERRORS[heard["error"]](heard["text"])
    return str(heard["value"])
