"""A study as a plan of a dry run: every trial is a pass, each from the same start."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine

from ignite_lr.core.figure import private_figure
from ignite_lr.dry_run import (
    Block,
    DryRun,
    Pass,
    Passes,
    Record,
    Setting,
    Validation,
    batches_ahead,
    enter_stream,
    is_one_shot,
    mean_over_ranks,
)
from ignite_lr.range_test import Curve
from ignite_lr.study._keeper import Keeper
from ignite_lr.study._plan import StudyPlan
from ignite_lr.study._result import StudyResult
from ignite_lr.study._runs import Run
from ignite_lr.study._trials import Trial

__all__ = ["LRStudy", "run_study"]


class LRStudy:
    """Trials of learning rates on any Ignite trainer, all from the same start, without a trace in the training.

    A range test looks at a rate for one update; whether a rate trains, only training at it can tell. Every trial of a
    study starts from the same parameters, optimizer states, random numbers and batches, so that what differs between
    them is the rate alone. When the block ends, in whatever way, everything is as it was before.

    Example:
        >>> import torch
        >>> from ignite.engine import create_supervised_trainer
        >>> from ignite_lr import trials
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> trainer = create_supervised_trainer(model, optimizer, torch.nn.functional.mse_loss)
        >>> data = [(x, x.sum(1, keepdim=True)) for x in torch.randn(50, 8, 4)]
        >>> study = LRStudy()
        >>> with study.attach(trainer, {"model": model, "optimizer": optimizer},
        ...                   trials.multiples(0.1, (0.5, 1, 10)), num_updates=40) as engine:
        ...     _ = engine.run(data)
        >>> [trial.outcome for trial in study.result.trials]
        ['completed', 'completed', 'diverged']
        >>> study.result.apply(optimizer)
        0.1

    References:
        Godbole et al., Deep Learning Tuning Playbook, https://github.com/google-research/tuning_playbook
    """

    def __init__(self) -> None:
        self._result: StudyResult | None = None

    def __repr__(self) -> str:
        return f"LRStudy({'not run yet' if self._result is None else repr(self._result)})"

    @property
    def result(self) -> StudyResult:
        """What the last study found; after Ctrl-C or an exception, its finished trials.

        Raises:
            RuntimeError: before the first run.
        """
        if self._result is None:
            raise RuntimeError("the study didn't run yet, so it has no result: engine.run(data) inside its block")
        return self._result

    def attach(
        self,
        trainer: Engine,
        to_save: Mapping[str, Any],
        trials: Iterable[Trial],
        num_updates: int | None = None,
        output_transform: Callable[[Any], Any] = lambda output: output,
        *,
        validation: Validation | None = None,
        validate_every: int | None = None,
        mode: str = "min",
        optimizer_key: str = "optimizer",
        repeats: int = 1,
        smooth_f: float = 0.05,
        diverge_th: float = 5.0,
        snapshot_to: torch.device | str | os.PathLike[str] | None = None,
        progress_bar: bool | None = None,
        logger: Any = None,
        file: str | os.PathLike[str] | None = None,
    ) -> Block:
        """Prepare a study; use it as ``with study.attach(...) as engine: engine.run(loader)``.

        ``engine`` is an engine of its own that runs the trainer's process function; the trainer's handlers do not
        fire. A trial ends early when its loss is not finite, or when the rule of the range test says that it diverged
        and the smoothed loss is above its first one.

        Args:
            trainer: fresh, finished, interrupted, loaded or crashed: it goes on afterwards as if nothing had been.
            to_save: what a trial changes and the end of it restores, by name; as for ``LRFinder.attach``.
            trials: what to try, such as ``trials.spread(1e-4, 1e-1, n=12)``; sets join with ``+``.
            num_updates: the length, in updates of the optimizer, of trials that name none.
            output_transform: picks the loss out of what the process function returns: a number, or a tensor or array
                of one element.
            validation: what trials are compared by, at their end: a function without arguments, or ``(evaluator,
                loader, metric name)``, of whose handlers only the metrics run. Over ranks, the mean. None: the mean
                training loss of the last tenth of the updates, at least 10, which favours rates that overfit.
            validate_every: validate also after so many updates, which shows overfitting; needs a ``validation``.
            mode: ``"min"`` or ``"max"``: which validation value is better.
            optimizer_key: which entry of ``to_save`` is tried; the other optimizers keep their rates. Parameter groups
                keep the ratios of their base rates, ``initial_lr`` where there is one: the group with the largest one
                gets the rates of the trials.
            repeats: run every trial over so many streams of batches, the same for all trials; their spread tells which
                differences are noise.
            smooth_f: weight of the new loss in the smoothed losses, in [0, 1); 0 means no smoothing.
            diverge_th: as for the range test, at least 1.
            snapshot_to: where the copy of the training lies: None for the devices where it is, ``"cpu"`` or another
                device, or a directory.
            progress_bar: None shows one on a terminal; True and False force it.
            logger: a ``TensorboardLogger`` to write a curve for each trial to, and the picture, under ``study/``.
            file: a JSON file that is written after every finished trial. Trials that are in it are not run again, so
                that a study that was interrupted goes on, and one that is given more trials is extended.

        Returns:
            a context manager that gives the study's engine.

        Raises:
            TypeError: if an argument has the wrong type.
            ValueError: if an argument is out of its range; if a schedule gives no rate; if ``file`` is of another
                study: says what differs. In ``engine.run``: if the data is an iterator, which cannot give its batches
                twice.
            OSError: if ``file`` cannot be written.

        Warns:
            UserWarning: for data whose position or random state cannot be restored.
        """
        setting = Setting.checked(
            trainer, to_save, optimizer_key, output_transform, validation, snapshot_to, progress_bar
        )
        if logger is not None and not hasattr(getattr(logger, "writer", logger), "add_figure"):
            raise TypeError(f"logger must be a TensorboardLogger, got {type(logger).__name__}.")
        plan = StudyPlan.checked(
            setting,
            trials,
            num_updates,
            validate_every,
            mode,
            repeats,
            smooth_f,
            diverge_th,
            fingerprint=file is not None,
        )
        keeper = Keeper(plan, file)

        def enter() -> None:
            self._result = None

        def deliver(unfinished: Sequence[Run] = ()) -> None:
            self._result = StudyResult(keeper.results(unfinished), plan.settings)

        return Block(
            "study",
            setting,
            lambda engine: _passes(engine, plan, keeper, deliver),
            entered=enter,
            left=lambda: _log(logger, self._result),
        )


def run_study(
    trainer: Engine,
    data: Iterable[Any],
    to_save: Mapping[str, Any],
    trials: Iterable[Trial],
    num_updates: int | None = None,
    **options: Any,
) -> StudyResult:
    """Attach a study, run it over the data and leave: everything but the result is as it was before.

    Args:
        trainer: as for :meth:`LRStudy.attach`.
        data: batches that can be read again, such as a loader or a list.
        to_save: what a trial changes, by name.
        trials: what to try.
        num_updates: the length of trials that name none.
        **options: what else :meth:`LRStudy.attach` takes.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if one is out of its range, or the data is an iterator.

    Example:
        >>> import torch
        >>> from ignite.engine import create_supervised_trainer
        >>> from ignite_lr import Trial
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> trainer = create_supervised_trainer(model, optimizer, torch.nn.functional.mse_loss)
        >>> data = [(x, x.sum(1, keepdim=True)) for x in torch.randn(50, 8, 4)]
        >>> run_study(trainer, data, {"model": model, "optimizer": optimizer},
        ...           [Trial(0.01), Trial(0.1)], num_updates=40).suggestion()
        0.1
    """
    study = LRStudy()
    with study.attach(trainer, to_save, trials, num_updates, **options) as engine:
        engine.run(data)
    return study.result


def _passes(engine: DryRun, plan: StudyPlan, keeper: Keeper, deliver: Callable[[Sequence[Run]], None]) -> Passes:
    """The passes of a study: every trial over every stream, in the order given.

    Args:
        engine: what runs them.
        plan: the arguments of the study.
        keeper: of the finished trials; those it has already are not run again.
        deliver: called whenever there is more of the result, with the runs of a trial that was terminated.
    """
    if is_one_shot(engine.data):
        kind = type(engine.data).__name__
        raise ValueError(
            f"data must be readable again, since every trial starts at its first batch, got {kind}, an iterator: pass "
            "a data loader or a list."
        )
    keeper.begin()
    deliver(())
    ahead = plan.repeats * sum(plan.planned[len(keeper.runs) :])
    for index in range(len(keeper.runs), len(plan.trials)):
        runs: list[Run] = []
        for number in range(plan.repeats):
            ahead -= plan.planned[index]
            trial = _TrialRun(engine, plan, index, number, ahead)
            record = yield trial.as_pass()
            if record.reason.startswith("exception"):
                return
            runs.append(trial.end(record))
            if record.reason == "terminated":
                deliver(runs)
                return
        keeper.finish(runs)
        deliver(())


class _TrialRun:
    """One run of a trial over one stream of batches."""

    def __init__(self, engine: DryRun, plan: StudyPlan, index: int, number: int, ahead: int) -> None:
        self._engine = engine
        self._plan = plan
        self._index = index
        self._number = number
        self._ahead = ahead
        self._rates = plan.rates(index)
        self._curve = Curve(self._rates, plan.settings.smooth_f, plan.diverge_th)
        self._validations: list[tuple[int, float]] = []

    def as_pass(self) -> Pass:
        """What the engine is to run."""
        engine, plan, number = self._engine, self._plan, self._number
        stream = f", stream {number + 1} of {plan.repeats}" if plan.repeats > 1 else ""
        return Pass(
            self._rates,
            stop=self._stop,
            skip=batches_ahead(number, plan.repeats, engine.data, engine.length) if number else 0,
            prepare=lambda: enter_stream(number, engine.snapshot, engine.data),
            updated=None if plan.validate_every is None else self._validate_at_times,
            ahead=self._ahead,
            name=f"{plan.trials[self._index].label}{stream}",
            shown=lambda: self._curve.smoothed[-1],
        )

    def end(self, record: Record) -> Run:
        """What came of it, while the training still is as the trial left it."""
        outcome = {"diverged": "diverged", "non_finite": "non_finite", "completed": "completed"}.get(
            record.reason, "terminated"
        )
        if outcome == "completed" and self._plan.settings.validated:
            self._validate(len(record.losses))
        return Run(outcome, tuple(record.losses), tuple(self._validations))

    def _stop(self, loss: float) -> str | None:
        # five times a loss near zero is an ordinary batch: what diverges also leaves its first level
        reason = self._curve.add(loss)
        return "diverged" if reason == "divergence" and self._curve.smoothed[-1] > self._curve.losses[0] else None

    def _validate_at_times(self, updates: int) -> None:
        every = self._plan.validate_every
        assert every is not None
        done = self._validations[-1][0] if self._validations else 0
        # an iteration may make several updates, and so pass over the one in question
        if updates // every > done // every and math.isfinite(self._curve.losses[-1]):
            self._validate(updates)

    def _validate(self, updates: int) -> None:
        if self._validations and self._validations[-1][0] == updates:
            return
        assert self._engine.validate is not None
        self._validations.append((updates, mean_over_ranks(self._engine.validate())))


def _log(logger: Any, result: StudyResult | None) -> None:
    """Write the curves and the picture to TensorBoard."""
    if logger is None or result is None or idist.get_rank() != 0:
        return
    writer = getattr(logger, "writer", logger)
    tags: set[str] = set()
    for trial in result.trials:
        name = tag = "study/" + re.sub(r"[^-/\w.]+", "_", trial.trial.label)  # what TensorBoard takes in a name
        for number in range(2, len(result.trials) + 1):
            if tag in tags:
                tag = f"{name}_{number}"
        tags.add(tag)
        for update, loss in enumerate(trial.losses, start=1):
            writer.add_scalar(tag, loss, update)
    picture = private_figure()
    result.plot(picture.add_subplot())
    writer.add_figure("study/objective", picture)
