"""The curve of a range test and what it says.

:class:`Curve` records one sweep and decides when it has to stop; :class:`RangeTestResult` is what remains of it:
frozen, comparable, writable as JSON, and able to suggest, apply and draw.
"""

from __future__ import annotations

import json
import math
import os
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.optim import Optimizer

from ignite_lr import suggestion as rules
from ignite_lr.suggestion import NoSuggestionError, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Curve", "RangeTestResult", "SweepCurve", "leading_lrs", "set_rates", "sweep_rates", "swept"]

Rates = tuple[float, ...]
Rate = float | list[float]

swept: weakref.WeakSet[Optimizer] = weakref.WeakSet()
"""Optimizers inside a range test at the moment: a rate written to them would be undone at its end."""

_FORMAT = "ignite_lr.RangeTestResult"
_VERSION = 1


def sweep_rates(starts: Sequence[float], ends: Sequence[float], num_iter: int, step_mode: str) -> list[Rates]:
    """The rates of every point of a sweep, group by group.

    ``"exp"``: start * (end / start) ** (i / (num_iter - 1)); ``"linear"``: start + (end - start) * i / (num_iter - 1),
    for i = 0 ... num_iter - 1. The first point is exactly the start, the last exactly the end; a single point is the
    start.

    Args:
        starts: the first rate of each parameter group; positive for ``"exp"``.
        ends: the last rate of each parameter group.
        num_iter: the number of points, at least 1.
        step_mode: ``"exp"`` or ``"linear"``.

    Example:
        >>> sweep_rates([0.01], [1.0], 3, "exp")
        [(0.01,), (0.1,), (1.0,)]
    """

    def rate(start: float, end: float, share: float) -> float:
        if share in (0.0, 1.0) or start == end:
            return end if share == 1.0 else start
        return start * (end / start) ** share if step_mode == "exp" else start + (end - start) * share

    last = max(num_iter - 1, 1)
    return [
        tuple(rate(start, end, index / last) for start, end in zip(starts, ends, strict=True))
        for index in range(num_iter)
    ]


def set_rates(optimizer: Optimizer, rates: Iterable[float], *, initial: bool = False) -> None:
    """Write one rate to each parameter group; a rate held as a tensor is filled in place.

    Args:
        optimizer: whose groups.
        rates: as many rates as groups.
        initial: whether to write ``initial_lr`` too, where a scheduler has put one.
    """
    keys = ("lr", "initial_lr") if initial else ("lr",)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        for key in keys:
            present = group.get(key)
            if isinstance(present, torch.Tensor):
                present.fill_(rate)
            elif key in group:
                group[key] = rate


@dataclass(frozen=True)
class SweepCurve:
    """One sweep of a range test.

    Attributes:
        lrs: the rate of each point: a float, or a tuple with one for each parameter group.
        losses: the raw loss of each point.
        smoothed_losses: the same, exponentially smoothed as the sweep went.
        stop_reason: why this sweep ended.
        stop_lr: the rate in use when it ended, a tuple for several groups.
    """

    lrs: tuple[Any, ...]
    losses: tuple[float, ...]
    smoothed_losses: tuple[float, ...]
    stop_reason: str
    stop_lr: Any


class Curve:
    """The points of one sweep as they come in.

    Args:
        rates: the planned rates of each point, from :func:`sweep_rates`.
        smooth_f: weight of the new loss in the smoothed one, in [0, 1); 0 means no smoothing.
        diverge_th: at least 1; a smoothed loss above ``diverge_th`` times the best one ends the sweep.
    """

    def __init__(self, rates: Sequence[Rates], smooth_f: float, diverge_th: float) -> None:
        self.rates = rates
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self._smooth_f = smooth_f
        self._diverge_th = diverge_th
        self._best = math.inf
        self._all_positive = True
        self._low, self._high = math.inf, -math.inf
        self._range = 0.0  # of the raw losses, up to the best point so far

    def add(self, loss: float) -> str | None:
        """Record the loss of the next point.

        Returns:
            why the sweep has to stop, or None.
        """
        smoothed = loss
        if self.smoothed and self._smooth_f > 0:
            smoothed = self._smooth_f * loss + (1 - self._smooth_f) * self.smoothed[-1]
        self.losses.append(loss)
        self.smoothed.append(smoothed)
        if not math.isfinite(loss):
            return "non_finite"
        if self._is_divergence(loss, smoothed):
            return "divergence"
        return "num_iter" if len(self.losses) == len(self.rates) else None

    def _is_divergence(self, loss: float, smoothed: float) -> bool:
        """Whether the smoothed loss has left for good.

        While all smoothed losses are positive: when it exceeds ``diverge_th`` times the best. A ratio means nothing
        for losses that are negative or zero, so there the rise above the best is held against the range of the losses
        seen until the best: it may be (diverge_th - 1) times as large, the same as for a loss that fell to a value
        equal to that range. Five points are the least that make a range.
        """
        settled = len(self.losses) > 5
        self._low, self._high = min(self._low, loss), max(self._high, loss)
        if smoothed < self._best:
            self._best = smoothed
            self._range = self._high - self._low
        elif not settled:
            self._range = self._high - self._low
        self._all_positive = self._all_positive and smoothed > 0
        if self._all_positive:
            return smoothed > self._diverge_th * self._best
        return settled and smoothed - self._best > (self._diverge_th - 1) * self._range

    def freeze(self, stop_reason: str, at: int) -> SweepCurve:
        """What was recorded, for good.

        Args:
            stop_reason: why it ended.
            at: the index of the point whose rate was in use then.
        """
        return SweepCurve(
            lrs=tuple(_plain(rates) for rates in self.rates[: len(self.losses)]),
            losses=tuple(self.losses),
            smoothed_losses=tuple(self.smoothed),
            stop_reason=stop_reason,
            stop_lr=_plain(self.rates[at]),
        )


def leading_lrs(lrs: Sequence[Any]) -> list[float]:
    """One rate for each point: that of the parameter group with the largest rates.

    Example:
        >>> leading_lrs([(0.1, 0.01), (1.0, 0.1)])
        [0.1, 1.0]
    """
    if not lrs or not isinstance(lrs[0], tuple):
        return list(lrs)
    leader = max(range(len(lrs[-1])), key=lrs[-1].__getitem__)
    return [point[leader] for point in lrs]


def _row(rates: Any) -> tuple[float, ...]:
    return rates if isinstance(rates, tuple) else (rates,)


def _plain(rates: Rates) -> Any:
    return rates[0] if len(rates) == 1 else tuple(rates)


@dataclass(frozen=True, repr=False)
class RangeTestResult:
    """The outcome of a range test.

    Attributes:
        lrs: the learning rate of each point, increasing; with several parameter groups a tuple for each point.
        losses: the raw loss of each point; with repeats the mean over the sweeps, as far as all of them came.
        smoothed_losses: the same, smoothed exponentially with ``smooth_f`` as the sweep went.
        stop_reason: ``"num_iter"``, ``"divergence"``, ``"non_finite"``, ``"terminated"`` or ``"exception:<type>"``;
            with repeats that of the last sweep.
        stop_lr: the rate in use when the (last) sweep stopped; a tuple for several groups.
        iterations: how many batches were used, over all sweeps.
        step_mode: ``"exp"`` or ``"linear"``.
        loss_name: what the losses are, ``"Loss"`` or ``"Validation loss"``.
        sweeps: every sweep on its own, where there was more than one.

    Example:
        >>> lrs = [1e-4 * 10 ** (i / 20) for i in range(100)]
        >>> losses = [2.0 - 1.5 * min(i / 60, 1.0) + max(0, i - 70) ** 2 / 100 for i in range(100)]
        >>> result = RangeTestResult(tuple(lrs), tuple(losses), tuple(losses), "num_iter", lrs[-1])
        >>> result.suggestion("minimum") < result.unstable_lr
        True
    """

    lrs: tuple[Any, ...]
    losses: tuple[float, ...]
    smoothed_losses: tuple[float, ...]
    stop_reason: str
    stop_lr: Any
    iterations: int = 0
    step_mode: str = "exp"
    loss_name: str = "Loss"
    sweeps: tuple[SweepCurve, ...] = field(default=())

    @classmethod
    def from_sweeps(
        cls, sweeps: Sequence[SweepCurve], *, smooth_f: float, iterations: int, step_mode: str, loss_name: str
    ) -> RangeTestResult:
        """Put one or several sweeps over the same rates together."""
        last = sweeps[-1]
        lrs, losses, smoothed = last.lrs, last.losses, last.smoothed_losses
        if len(sweeps) > 1:
            points = min(len(sweep.losses) for sweep in sweeps)
            lrs = lrs[:points]
            losses = tuple(math.fsum(at) / len(sweeps) for at in zip(*(s.losses[:points] for s in sweeps), strict=True))
            mean = Curve([(0.0,)] * (points + 1), smooth_f, math.inf)
            for loss in losses:
                mean.add(loss)
            smoothed = tuple(mean.smoothed)
        return cls(
            lrs=lrs,
            losses=losses,
            smoothed_losses=smoothed,
            stop_reason=last.stop_reason,
            stop_lr=last.stop_lr,
            iterations=iterations,
            step_mode=step_mode,
            loss_name=loss_name,
            sweeps=tuple(sweeps) if len(sweeps) > 1 else (),
        )

    @property
    def groups(self) -> int:
        """The number of parameter groups."""
        return len(self.lrs[0]) if self.lrs and isinstance(self.lrs[0], tuple) else 1

    def suggestion(self, method: str | None = None) -> Rate:
        """The learning rate that a rule reads off the curve.

        Args:
            method: a name from ``ignite_lr.suggestion.RULES``; None for the default rule. The default rule reads the
                raw losses of every sweep, the others the smoothed losses, as their originals do.

        Returns:
            a rate; for several parameter groups a list with one for each: the rule is asked about the group with the
            largest rates, and the others get what they had at the same point of the sweep.

        Raises:
            NoSuggestionError: if the default rule cannot name a rate, or if there is no curve to read; says why.
            ValueError: if there is no rule of that name.
        """
        name = rules.DEFAULT if method is None else method
        if name not in rules.RULES:
            raise ValueError(f"method must be one of {', '.join(sorted(rules.RULES))}, got {method!r}")
        if name == rules.DEFAULT:
            verdict = self._verdict
            if verdict.lr is None:
                raise NoSuggestionError(verdict.reason)
            return self._for_groups(verdict.lr)
        lrs, losses = self._readable(leading_lrs(self.lrs), self.smoothed_losses)
        if sum(1 for loss in losses if math.isfinite(loss)) < 2:
            raise NoSuggestionError(
                f"the sweep has {len(self.losses)} points, too few with a finite loss: "
                f"it stopped with {self.stop_reason!r}"
            )
        return self._for_groups(rules.RULES[name](lrs, losses))

    def suggestions(self) -> dict[str, Rate | None]:
        """What every rule says, by name; None where it abstains."""
        found: dict[str, Rate | None] = {}
        for name in rules.RULES:
            try:
                found[name] = self.suggestion(name)
            except (NoSuggestionError, ValueError):  # noqa: PERF203 - one rule's silence is not the others'
                found[name] = None
        return found

    @property
    def confidence(self) -> float:
        """How far the descent stands out of the noise, in [0, 1]; see ``suggestion.judge``."""
        return self._verdict.confidence

    @property
    def interval(self) -> tuple[float, float] | None:
        """The smallest and the largest rate that the repeats suggest; None for a single sweep.

        For several groups, those of the group with the largest rates.
        """
        return self._verdict.interval

    @property
    def unstable_lr(self) -> float | None:
        """The smallest rate after which the loss stays above its starting level, or None."""
        lrs, losses = self._readable(leading_lrs(self.lrs), self.losses)
        try:
            return rules.unstable_lr(lrs, losses)
        except ValueError:  # not a curve
            return None

    def apply(self, optimizer: Optimizer, method: str | None = None) -> Rate:
        """Write the suggested rate to every parameter group, and to ``initial_lr`` where there is one.

        Rates that are tensors are filled in place.

        Args:
            optimizer: with as many groups as the swept one; any number of groups if that had one.
            method: see :meth:`suggestion`.

        Returns:
            what was written.

        Raises:
            NoSuggestionError: if there is no suggestion; the optimizer is left alone.
            RuntimeError: inside the block of a range test on this optimizer, which would undo it.
            ValueError: if the number of parameter groups does not match.
        """
        if optimizer in swept:
            raise RuntimeError(
                "apply() is for after the block: at its end the range test restores this optimizer, rates included."
            )
        rate = self.suggestion(method)
        rates = rate if isinstance(rate, list) else [rate] * len(optimizer.param_groups)
        if len(rates) != len(optimizer.param_groups):
            raise ValueError(
                "The number of parameter groups does not match: the range test swept "
                f"{len(rates)}, the optimizer has {len(optimizer.param_groups)}"
            )
        set_rates(optimizer, rates, initial=True)
        return rate

    def plot(
        self,
        ax: Axes | None = None,
        title: str | None = None,
        *,
        skip_start: int = 0,
        skip_end: int = 0,
        log_lr: bool | None = None,
        suggestions: bool = True,
    ) -> Axes:
        """Draw the curve, the suggestions and the unstable region with Matplotlib.

        Args:
            ax: axes to draw on; None makes a figure, which belongs to no window.
            title: over the picture.
            skip_start: points to leave out at the beginning.
            skip_end: points to leave out at the end.
            log_lr: whether the x axis is logarithmic; None: as the sweep was.
            suggestions: whether to mark what the rules suggest.

        Returns:
            the axes; ``.figure.savefig(path)`` writes the picture.

        Raises:
            ModuleNotFoundError: without Matplotlib.
        """
        from ignite_lr import plotting

        log = self.step_mode == "exp" if log_lr is None else log_lr
        return plotting.range_test(
            plotting.RangeTestPicture(**self._picture(log)),
            ax=ax,
            title=title,
            skip_start=skip_start,
            skip_end=skip_end,
            suggestions=suggestions,
        )

    def to_html(self, path: str | os.PathLike[str], title: str | None = None) -> Path:
        """Write an interactive picture to one HTML file that needs nothing else, not even a network.

        Args:
            path: the file.
            title: over the picture.

        Returns:
            the path.

        Raises:
            ModuleNotFoundError: without Bokeh (``pip install ignite_lr[html]``).
        """
        from ignite_lr import plotting

        picture = plotting.RangeTestPicture(**self._picture(self.step_mode == "exp"))
        return plotting.range_test_html(picture, path, title=title)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result as JSON (RFC 8259); non-finite numbers become strings.

        Returns:
            the path.
        """
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            **{name: getattr(self, name) for name in _FIELDS},
            "sweeps": [{name: getattr(sweep, name) for name in _SWEEP_FIELDS} for sweep in self.sweeps],
        }
        target = Path(path)
        target.write_text(json.dumps(_to_json(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RangeTestResult:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: if the file is no range test result.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{os.fspath(path)!r} is no range test result: not JSON ({error})") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError(f"{os.fspath(path)!r} is no range test result: it has no format {_FORMAT!r}")
        if content.get("version") != _VERSION:
            raise ValueError(
                f"{os.fspath(path)!r} has version {content.get('version')!r} of the format, "
                f"this release reads version {_VERSION}"
            )
        try:
            values = {name: _checked(name, content[name]) for name in _FIELDS}
            sweeps = tuple(
                SweepCurve(**{name: _checked(name, sweep[name]) for name in _SWEEP_FIELDS})
                for sweep in content["sweeps"]
            )
            _check_lengths([values, *map(vars, sweeps)])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)!r} is no range test result: {error!r}") from error
        return cls(**values, sweeps=sweeps)

    def __repr__(self) -> str:
        verdict = self._verdict
        if verdict.lr is None:
            says = f"no suggestion ({verdict.reason})"
        else:
            says = f"suggestion {_text(self._for_groups(verdict.lr))}, confidence {verdict.confidence:.2f}"
            if verdict.interval is not None:
                says += f", interval {verdict.interval[0]:.3g} to {verdict.interval[1]:.3g}"
        size = f"{len(self.losses)} points"
        if self.sweeps:
            size += f", {len(self.sweeps)} sweeps"
        return (
            f"<{type(self).__name__}: {says}; stopped by {self.stop_reason} at lr {_text(self.stop_lr)}; "
            f"{size}, {self.iterations} iterations>"
        )

    def _picture(self, log_lr: bool) -> dict[str, Any]:
        # groups with the same rates are one line
        groups = list(dict.fromkeys(zip(*map(_row, self.lrs), strict=True)))
        drawn = [list(zip(*map(_row, self.lrs), strict=True)).index(group) for group in groups]
        suggestions: dict[str, list[float] | None] = {}
        for name, rate in self.suggestions().items():
            row = [rate] if isinstance(rate, float) else rate
            suggestions[name] = None if row is None else [row[group] for group in drawn]
        size = f"{len(self.sweeps)} sweeps of up to " if self.sweeps else ""
        return {
            "lrs": groups,
            "losses": self.losses,
            "smoothed": self.smoothed_losses,
            "loss_name": self.loss_name,
            "log_lr": log_lr,
            "default": rules.DEFAULT,
            "suggestions": suggestions,
            "confidence": self.confidence,
            "interval": self.interval,
            "unstable_lr": self.unstable_lr,
            "sweeps": [(leading_lrs(sweep.lrs), sweep.losses) for sweep in self.sweeps],
            "note": f"{size}{len(self.losses)} points, {self.iterations} iterations; "
            f"stopped by {self.stop_reason} at lr {_text(self.stop_lr)}",
        }

    def _readable(self, lrs: Sequence[float], losses: Sequence[float]) -> tuple[list[float], list[float]]:
        """What the rules can work with: a linear sweep may begin at a rate of zero, which has no logarithm."""
        first = next((index for index, lr in enumerate(lrs) if lr > 0), len(lrs))
        return list(lrs[first:]), list(losses[first:])

    @property
    def _verdict(self) -> Verdict:
        sweeps = self.sweeps or (SweepCurve(self.lrs, self.losses, (), "", 0.0),)
        lrs = max((leading_lrs(sweep.lrs) for sweep in sweeps), key=len)
        curves = [self._readable(lrs[: len(sweep.losses)], sweep.losses)[1] for sweep in sweeps]
        if not any(curves):
            return Verdict(None, 0.0, f"the sweep has no points: it stopped with {self.stop_reason!r}")
        try:
            return rules.judge_repeats(self._readable(lrs, lrs)[0], curves)
        except ValueError as error:  # a result made or loaded by hand, whose rates are no curve
            return Verdict(None, 0.0, str(error))

    def _for_groups(self, rate: float) -> Rate:
        """The rates of all groups where the leading one has ``rate``."""
        if self.groups == 1:
            return rate
        axis = leading_lrs(self.lrs)
        index = next((i for i, lr in enumerate(axis) if lr >= rate), len(axis))
        if index < len(axis) and axis[index] == rate:
            return list(self.lrs[index])
        if index in (0, len(axis)):  # beyond the sweep all groups keep the ratio they had at its end
            edge = min(index, len(axis) - 1)
            return [lr * (rate / axis[edge]) for lr in self.lrs[edge]]
        share = math.log(rate / axis[index - 1]) / math.log(axis[index] / axis[index - 1])
        return [
            low * (high / low) ** share if low > 0 else low + (high - low) * share
            for low, high in zip(self.lrs[index - 1], self.lrs[index], strict=True)
        ]


_FIELDS = (
    "lrs",
    "losses",
    "smoothed_losses",
    "stop_reason",
    "stop_lr",
    "iterations",
    "step_mode",
    "loss_name",
)
_SWEEP_FIELDS = ("lrs", "losses", "smoothed_losses", "stop_reason", "stop_lr")
_TEXTS = {"stop_reason", "step_mode", "loss_name"}


def _text(rate: Any) -> str:
    if isinstance(rate, (list, tuple)):
        return "[" + ", ".join(f"{one:.3g}" for one in rate) + "]"
    return f"{rate:.3g}"


def _to_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def _checked(name: str, value: Any) -> Any:
    """A field as it was written; the file may be anybody's."""
    if name in _TEXTS:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a text, got {value!r}")
        return value
    if name == "iterations":
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer, got {value!r}")
        return value
    if name != "stop_lr" and not isinstance(value, list):
        raise TypeError(f"{name} must be a list, got {value!r}")
    return _numbers(name, value)


def _numbers(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_numbers(name, item) for item in value)
    if value in ("nan", "inf", "-inf") or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return float(cast("float | str", value))
    raise TypeError(f"{name} must hold numbers, got {value!r}")


def _check_lengths(curves: Iterable[Any]) -> None:
    for curve in curves:
        if not len(curve["lrs"]) == len(curve["losses"]) == len(curve["smoothed_losses"]):
            raise ValueError("lrs, losses and smoothed_losses must have the same length")
