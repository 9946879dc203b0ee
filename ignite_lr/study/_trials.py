"""Trials, one by one and in the usual sets: which rates to train at, for how many updates.

All sets are plain tuples, so they join with ``+``, and each answers one question of the Deep Learning Tuning Playbook
(https://github.com/google-research/tuning_playbook): :func:`multiples` whether a rate is stable, :func:`spread` which
rate is best, :func:`warmups` whether a warmup makes a higher rate possible, and how short it may be.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ignite_lr.core.arguments import AT_ONCE, Real, Rule, Text, Whole, check_callable, check_items, shown
from ignite_lr.schedules import Constant

__all__ = ["Trial", "multiples", "spread", "warmups"]

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True)
class Trial:
    """One short training: update ``i``, counted from 0, runs at the rate ``lr * schedule(i)``.

    Parameter groups keep the ratios of their base rates; the group with the largest one gets these rates.

    Args:
        lr: the base rate, greater than 0.
        schedule: any schedule, or another function from the index of an update to a factor of the rate, at least 0.
            None: the rate is constant.
        num_updates: how long the trial is, at least 1; None: as long as the study says.
        name: what tables and pictures call it; None: its rate and its warmup.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if an argument is out of range.

    Example:
        >>> from ignite_lr import schedules
        >>> Trial(0.1, schedules.Constant(warmup_steps=2)).rates(4)
        (0.0, 0.05, 0.1, 0.1)
    """

    lr: float
    # schedules that give the same values are equal, see Recorded, and have no hash in common
    schedule: Callable[[int], float] | None = field(default=None, hash=False)
    num_updates: int | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        for name, rule in _RULES.items():
            # the way of a frozen dataclass
            object.__setattr__(self, name, rule.check(f"Trial: {name}", getattr(self, name)))
        check_callable("Trial: schedule", self.schedule, or_none=True)

    @property
    def label(self) -> str:
        """What tables and pictures call it."""
        if self.name is not None:
            return self.name
        warmup = self.warmup_steps()
        return f"lr {self.lr:.3g}" + (f", warmup {warmup}" if warmup else "")

    def factors(self, num_updates: int) -> tuple[float, ...]:
        """The factor of each of the first updates, as plain numbers.

        Args:
            num_updates: how many, at least 0.

        Raises:
            ValueError: if one is negative, infinite or no number; says at which update.
            TypeError: if one is of another type.
        """
        Whole(0, maximum=AT_ONCE).check("num_updates", num_updates)
        if self.schedule is None:
            return (1.0,) * num_updates
        factors = []
        for step in range(num_updates):
            name = f"trial {self.name or f'lr {self.lr:.3g}'}: the factor of its schedule at update {step}"
            factors.append(_checked_factor(name, self.schedule(step)))
        return tuple(factors)

    def rates(self, num_updates: int) -> tuple[float, ...]:
        """The rate of each of the first updates, of the parameter group with the largest one.

        Args:
            num_updates: how many, at least 0.

        Raises:
            ValueError: if the schedule gives a negative factor, an infinite one or none at all.
        """
        return tuple(self.lr * factor for factor in self.factors(num_updates))

    def warmup_steps(self, num_updates: int | None = None) -> int:
        """How many updates its warmup takes; 0 without a schedule.

        Args:
            num_updates: how long the trial is. A schedule that does not name its ``warmup_steps`` is asked for so many
                factors, and what rises from update 0 on, and then ends rising, is its warmup. None: it has none.
        """
        Whole(0, or_none=True, maximum=AT_ONCE).check("num_updates", num_updates)
        known = getattr(self.schedule, "warmup_steps", None)
        if self.schedule is None or num_updates is None or isinstance(known, int):
            return known if isinstance(known, int) else 0
        return rising(self.factors(num_updates))


_RULES: dict[str, Rule] = {
    "lr": Real(above=0.0),
    "num_updates": Whole(1, or_none=True, maximum=AT_ONCE),
    "name": Text(empty=False, or_none=True),
}


def _checked_factor(name: str, value: Any) -> float:
    factor = Real(minimum=0.0).check(name, value)
    assert factor is not None
    return factor


@dataclass(frozen=True, eq=False)
class Recorded:
    """The factors of a schedule that a file kept; from their end on, the last one holds.

    It equals any schedule that gives these factors: a function cannot be saved, but what it said can.

    Args:
        values: the factors, from update 0 on; at least one.
        warmup_steps: those of the schedule, if it named them.
    """

    values: tuple[float, ...]
    warmup_steps: int | None = None

    def __call__(self, step: int) -> float:
        """The factor of an update."""
        return self.values[min(step, len(self.values) - 1)]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Recorded):
            return self.values == other.values
        return callable(other) and self.values == tuple(other(step) for step in range(len(self.values)))

    def __hash__(self) -> int:
        return hash(self.values)

    def __repr__(self) -> str:
        return f"<{len(self.values)} recorded factors>"


def rising(factors: Sequence[float]) -> int:
    """How many updates the factors rise from the first one on; 0 where they never stop, which is no warmup.

    Example:
        >>> rising([0.0, 0.5, 1.0, 1.0]), rising([1.0, 0.5]), rising([0.1, 0.2, 0.3])
        (2, 0, 0)
    """
    for index, (factor, following) in enumerate(itertools.pairwise(factors)):
        if following <= factor:
            return index
    return 0


def multiples(lr: float, factors: Iterable[float] = (0.5, 1, 2, 5, 10)) -> tuple[Trial, ...]:
    """Is a rate stable, and how near is the edge? Trials at multiples of it.

    The Playbook's way to recognise an instability that hides at the best rate: train at 2, 5 and 10 times of it.

    Args:
        lr: the rate in question, greater than 0.
        factors: its multiples, each greater than 0.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if a number is not positive.

    Example:
        >>> [trial.lr for trial in multiples(0.5, (1, 2))]
        [0.5, 1.0]
    """
    base = _positive("multiples: lr", lr)
    several = check_items("multiples: factors", "a sequence of numbers", factors)
    return tuple(Trial(base * _positive("multiples: factors", factor)) for factor in several)


def spread(low: float, high: float, n: int, seed: int = 0) -> tuple[Trial, ...]:
    """Which rate is best? Quasi-random rates, uniform in log lr.

    ``lr_i = low * (high / low) ** frac(u + i / phi)``, with the golden ratio phi and a start ``u`` in [0, 1) that
    depends on the seed alone. The first k rates are the spread of k, so that a study can be extended, and at any k the
    rates lie as evenly as a sequence can that does not know its end.

    Args:
        low: no rate is below it; greater than 0.
        high: no rate is above it; greater than ``low``.
        n: how many, at least 1.
        seed: another seed gives another sequence; at least 0.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if an argument is out of range.

    Source: the Playbook recommends quasi-random search for exploration; the sequence is that of Kronecker and Weyl.

    Example:
        >>> first = spread(1e-4, 1e-1, n=3)
        >>> spread(1e-4, 1e-1, n=12)[:3] == first
        True
    """
    bottom = _positive("spread: low", low)
    top = _positive("spread: high", high)
    if not top > bottom:
        raise ValueError(f"spread: high must be greater than low, got low={shown(low)} and high={shown(high)}.")
    count, start = Whole(1, maximum=AT_ONCE).check("spread: n", n), Whole(0).check("spread: seed", seed)
    assert count is not None
    first = random.Random(start).random()
    # in logarithms, because high / low may be beyond all floats
    start_at, width = math.log(bottom), math.log(top) - math.log(bottom)
    rates = (math.exp(start_at + width * ((first + index * _GOLDEN) % 1.0)) for index in range(count))
    return tuple(Trial(min(max(rate, bottom), top)) for rate in rates)


def warmups(
    peak_lr: float, warmup_steps: Iterable[int] = (0, 10, 100), post_warmup_steps: int | None = None
) -> tuple[Trial, ...]:
    """Which is the shortest warmup that makes a rate stable? Linear from 0 to the peak, then constant.

    Args:
        peak_lr: the rate that all of them reach, greater than 0.
        warmup_steps: lengths of warmups in updates, each at least 0.
        post_warmup_steps: updates at the peak, at least 1. None: twice the longest warmup, for every trial, so that
            all of them train equally long at the peak.

    Raises:
        TypeError: if an argument is of the wrong type.
        ValueError: if an argument is out of range, or if there is no longest warmup to go by.

    Example:
        >>> [(trial.warmup_steps(), trial.num_updates) for trial in warmups(0.1, (0, 10))]
        [(0, 20), (10, 30)]
    """
    peak = _positive("warmups: peak_lr", peak_lr)
    lengths = [
        _length(steps) for steps in check_items("warmups: warmup_steps", "a sequence of update counts", warmup_steps)
    ]
    after = Whole(1, or_none=True, maximum=AT_ONCE).check("warmups: post_warmup_steps", post_warmup_steps)
    if after is None:
        after = 2 * max(lengths, default=0)
        if not after:
            raise ValueError(
                "warmups: post_warmup_steps must be given where no warmup is longer than 0, "
                f"got warmup_steps={shown(tuple(lengths))}."
            )
    return tuple(Trial(peak, Constant(warmup_steps=w) if w else None, num_updates=w + after) for w in lengths)


def _positive(name: str, value: Any) -> float:
    number = Real(above=0.0).check(name, value)
    assert number is not None
    return number


def _length(value: Any) -> int:
    number = Whole(0, maximum=AT_ONCE).check("warmups: warmup_steps", value)
    assert number is not None
    return number


def checked_trials(trials: Any) -> tuple[Trial, ...]:
    """What ``attach`` was given, as a tuple of trials.

    Raises:
        TypeError: if it is no list of trials; says how to write it.
        ValueError: if it is empty.
    """
    if isinstance(trials, Trial):
        raise TypeError("trials must be a list of trials, got a Trial: write [Trial(...)].")
    ways = "write [Trial(0.1), Trial(0.2)] or trials.spread(0.01, 1.0, n=8)"
    listed = check_items("trials", "a list of trials", trials, ways)
    for trial in listed:
        if not isinstance(trial, Trial):
            raise TypeError(f"trials must hold trials, got {shown(trial)} of type {type(trial).__name__}: {ways}.")
    if not listed:
        raise ValueError(f"trials must hold at least one trial, got none: {ways}.")
    return listed
