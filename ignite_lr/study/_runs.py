"""Single runs of a trial, and what a trial says of them together: pure functions of losses.

A run comes in as its losses, its validations and how it ended. Out go objective, rise and descent, and which trials of
a study are feasible. Nothing here knows of engines, files or pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ignite_lr.study._trials import Trial

__all__ = ["OUTCOMES", "Run", "Settings", "TrialResult", "trial_results"]

OUTCOMES = ("completed", "diverged", "non_finite", "terminated")
"""How a run may end, from good to bad; a trial with repeats ends as its worst run."""


@dataclass(frozen=True)
class Settings:
    """What the numbers of a study mean.

    Attributes:
        mode: ``"min"`` or ``"max"``: which objective is better.
        validated: whether the objective is a validation value; otherwise it is a training loss.
        smooth_f: weight of the new loss in the smoothed one.
        ratios: the base rate of each parameter group, as a share of the largest one.
    """

    mode: str = "min"
    validated: bool = False
    smooth_f: float = 0.05
    ratios: tuple[float, ...] = (1.0,)

    def better(self, value: float, other: float) -> bool:
        """Whether one objective is better than another."""
        return value > other if self.mode == "max" else value < other


@dataclass(frozen=True)
class Run:
    """One run of a trial over one stream of batches.

    Attributes:
        outcome: ``"completed"``, ``"diverged"``, ``"non_finite"`` or ``"terminated"``.
        losses: the raw training loss of each update.
        validations: (updates made, value) pairs.
    """

    outcome: str
    losses: tuple[float, ...]
    validations: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        # the way of a frozen dataclass
        object.__setattr__(self, "losses", tuple(map(_one_nan, self.losses)))
        object.__setattr__(self, "validations", tuple((update, _one_nan(value)) for update, value in self.validations))


@dataclass(frozen=True, eq=False)
class TrialResult:
    """What became of a trial.

    Attributes:
        trial: what was tried.
        planned: how many updates it was to make.
        outcome: ``"completed"``, ``"diverged"``, ``"non_finite"`` or ``"terminated"``; with repeats the worst of them.
        losses: the raw training loss of each update; with repeats their mean, as far as all of them came.
        smoothed_losses: the same, smoothed exponentially.
        validations: (updates made, validation value) pairs; with repeats the means, likewise.
        objective: what trials are compared by: the last validation value, or the mean training loss of the last tenth
            of the updates, at least 10; NaN if the trial is not completed.
        feasible: whether it completed and learnt at least half as much as the one that learnt most.
        rise: how far the smoothed loss ever rose above its lowest so far, at least 0; inf where it was not finite.
        repeats: the single runs, one for each stream of batches.

    Example:
        >>> (result,) = trial_results([Trial(0.1)], [3], [[Run("completed", (3.0, 2.0, 1.0))]], Settings(smooth_f=0.0))
        >>> result.objective, result.feasible, result.rise, result.descent
        (2.0, True, 0.0, 2.0)
    """

    trial: Trial
    planned: int
    outcome: str
    losses: tuple[float, ...]
    smoothed_losses: tuple[float, ...]
    validations: tuple[tuple[int, float], ...]
    objective: float
    feasible: bool
    rise: float
    repeats: tuple[Run, ...]

    def __post_init__(self) -> None:
        # the way of a frozen dataclass
        object.__setattr__(self, "smoothed_losses", tuple(map(_one_nan, self.smoothed_losses)))
        object.__setattr__(self, "objective", _one_nan(self.objective))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TrialResult):
            return NotImplemented
        return tuple(vars(self).values()) == tuple(vars(other).values())

    def __hash__(self) -> int:
        return hash((self.trial, self.planned, self.outcome, self.losses))

    @property
    def updates(self) -> int:
        """How many updates it made; with repeats, that all of them made."""
        return len(self.losses)

    @property
    def descent(self) -> float:
        """The first loss less the last smoothed one; NaN without a loss."""
        return descent(self.losses, self.smoothed_losses)

    @property
    def warmup_steps(self) -> int:
        """The length of its warmup in updates."""
        return self.trial.warmup_steps(self.planned)

    def __repr__(self) -> str:
        kind = "feasible" if self.feasible else "infeasible"
        return (
            f"<{type(self).__name__}: {self.trial.label}, {self.outcome}, {kind}, objective {self.objective:.4g}, "
            f"{self.updates} updates>"
        )


def _one_nan(number: float) -> float:
    """The number; of all the NaNs always the same one, so that what is the same study compares as equal.

    A tuple asks first whether its items are the same objects, and a NaN that was read from a file would be another.
    """
    return math.nan if math.isnan(number) else number


def smoothed(losses: Sequence[float], smooth_f: float) -> tuple[float, ...]:
    """Losses, smoothed as in a range test: ``s_i = smooth_f * loss_i + (1 - smooth_f) * s_(i-1)``; 0 is no smoothing.

    Example:
        >>> smoothed([1.0, 0.0], 0.25)
        (1.0, 0.75)
    """
    found: list[float] = []
    for loss in losses:
        found.append(smooth_f * loss + (1.0 - smooth_f) * found[-1] if found and smooth_f else loss)
    return tuple(found)


def descent(losses: Sequence[float], smooth: Sequence[float]) -> float:
    """How far a loss came down: the first one less the last smoothed one; NaN without a loss."""
    return losses[0] - smooth[-1] if losses else math.nan


def rise(smooth: Sequence[float]) -> float:
    """How far a smoothed loss ever rose above its lowest so far; inf where it is not finite.

    Example:
        >>> rise([3.0, 1.0, 1.5, 0.5]), rise([1.0, float("nan")])
        (0.5, inf)
    """
    lowest, highest = math.inf, 0.0
    for loss in smooth:
        if not math.isfinite(loss):
            return math.inf
        lowest = min(lowest, loss)
        highest = max(highest, loss - lowest)
    return highest


def tail(losses: Sequence[float]) -> tuple[float, ...]:
    """The last tenth of the losses, at least 10 of them, if there are so many."""
    return tuple(losses[-max(10, len(losses) // 10) :])


def objective(run: Run, validated: bool) -> float:
    """What a run is worth; NaN if it is not completed."""
    if run.outcome != "completed" or not run.losses:
        return math.nan
    if validated:
        return run.validations[-1][1] if run.validations else math.nan
    last = tail(run.losses)
    return math.fsum(last) / len(last)


def together(runs: Sequence[Run]) -> Run:
    """The mean of several runs, as far as all of them came, with the worst outcome.

    Example:
        >>> together([Run("completed", (1.0, 2.0)), Run("diverged", (3.0,))])
        Run(outcome='diverged', losses=(2.0,), validations=())
    """
    if len(runs) == 1:
        return runs[0]
    shortest = min(len(run.losses) for run in runs)
    losses = tuple(_mean([run.losses[index] for run in runs]) for index in range(shortest))
    validations = tuple(
        (pairs[0][0], _mean([value for _, value in pairs]))
        for pairs in zip(*(run.validations for run in runs), strict=False)
    )
    return Run(max((run.outcome for run in runs), key=OUTCOMES.index), losses, validations)


def _mean(values: Sequence[float]) -> float:
    # fsum refuses a sum of infinities of both signs, which is none of our business here
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else sum(values) / len(values)


def trial_results(
    trials: Sequence[Trial], planned: Sequence[int], runs: Sequence[Sequence[Run]], settings: Settings
) -> tuple[TrialResult, ...]:
    """What became of trials, in the order given.

    Which are feasible is a matter between them: a trial that completed must have come down at least half as far as the
    one of them that came down most. A network that is dead at chance level completes, and learns nothing.

    Args:
        trials: what was tried.
        planned: how many updates each was to make.
        runs: the runs of each, at least one.
        settings: what the numbers mean.
    """
    means = [together(repeats) for repeats in runs]
    smooth = [smoothed(mean.losses, settings.smooth_f) for mean in means]
    descents = [descent(mean.losses, curve) for mean, curve in zip(means, smooth, strict=True)]
    largest = max((d for d, mean in zip(descents, means, strict=True) if mean.outcome == "completed"), default=0.0)
    results = []
    for trial, length, repeats, mean, curve, fall in zip(trials, planned, runs, means, smooth, descents, strict=True):
        broken = any(not math.isfinite(loss) for run in repeats for loss in run.losses)
        results.append(
            TrialResult(
                trial=trial,
                planned=length,
                outcome=mean.outcome,
                losses=mean.losses,
                smoothed_losses=curve,
                validations=mean.validations,
                objective=_mean([objective(run, settings.validated) for run in repeats]),
                feasible=mean.outcome == "completed" and largest > 0.0 and fall >= largest / 2,
                rise=math.inf if broken else rise(curve),
                repeats=tuple(repeats),
            )
        )
    return tuple(results)
