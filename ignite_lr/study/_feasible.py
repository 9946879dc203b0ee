"""Where rates train and where they fail: pure functions of the trials of a study.

A trial that was terminated says nothing either way and is left out everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ignite_lr.study._runs import Settings, TrialResult

__all__ = ["best_of", "by_rate", "ranking", "shortest_warmup", "stable_and_unstable"]


def by_rate(trials: Sequence[TrialResult]) -> list[TrialResult]:
    """The trials in the order of tables and pictures: by rate, then by warmup, else as given."""
    return sorted(trials, key=lambda result: (result.trial.lr, result.warmup_steps))


def judged(trials: Sequence[TrialResult]) -> list[TrialResult]:
    """The trials that say something about their rate, by rate."""
    return [result for result in by_rate(trials) if result.outcome != "terminated"]


def ranking(trials: Sequence[TrialResult], settings: Settings) -> list[TrialResult]:
    """The feasible trials with an objective, the best one first; of equals, the first one given."""
    able = [result for result in trials if result.feasible and not math.isnan(result.objective)]
    sign = -1.0 if settings.mode == "max" else 1.0
    return sorted(able, key=lambda result: sign * result.objective)


def best_of(trials: Sequence[TrialResult], settings: Settings) -> TrialResult | None:
    """The feasible trial with the best objective, or None."""
    return next(iter(ranking(trials, settings)), None)


def stable_and_unstable(trials: Sequence[TrialResult]) -> tuple[float | None, float | None]:
    """The largest rate up to which all is well, and the smallest one above it that fails.

    Rates below the smallest feasible one are slow, not unstable, so the walk upwards begins there.

    Returns:
        the largest feasible rate with no infeasible one between it and the smallest feasible rate, and the smallest
        infeasible rate above it; None where there is no such rate.
    """
    feasible = [result.trial.lr for result in judged(trials) if result.feasible]
    failed = [result.trial.lr for result in judged(trials) if not result.feasible]
    if not feasible:
        return None, None
    first_failure = min((lr for lr in failed if lr > feasible[0]), default=math.inf)
    stable = max(lr for lr in feasible if lr <= first_failure)
    return stable, min((lr for lr in failed if lr > stable), default=None)


def shortest_warmup(trials: Sequence[TrialResult]) -> int | None:
    """The shortest warmup of the feasible trials, 0 included; None where no trial has a warmup."""
    if not any(result.warmup_steps for result in trials):
        return None
    return min((result.warmup_steps for result in trials if result.feasible), default=None)
