"""What a range test found: frozen, comparable, writable as JSON, and able to suggest, apply and draw."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from ignite_lr import suggestion as rules
from ignite_lr.core.arguments import AT_ONCE, Flag, Whole, check_optimizer, wrong_type, wrong_value
from ignite_lr.core.figure import png
from ignite_lr.core.rates import set_base_rates
from ignite_lr.core.updates import is_suspended
from ignite_lr.range_test._bokeh import range_test_html, range_test_page
from ignite_lr.range_test._curve import SweepCurve, leading_lrs, mean_of, rates_of_groups, text_of
from ignite_lr.range_test._file import read_result, write_result
from ignite_lr.range_test._matplotlib import SIZE
from ignite_lr.range_test._matplotlib import range_test as draw_range_test
from ignite_lr.range_test._picture import picture_of
from ignite_lr.range_test._verified import Trials, VerifiedRate, confirmed
from ignite_lr.suggestion import LOWER, NoSuggestionError, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["RangeTestResult"]

Rate = float | list[float]


@dataclass(frozen=True, repr=False)
class RangeTestResult(SweepCurve):
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
        verified: the rates at which the training was tried after the sweep, in that order; empty without ``verify``.
        control: the losses of the same batches where nothing is learnt, if the trials had to be compared with them.
        present_start: whether the sweep began at the optimizer's rate of then, because no ``start_lr`` was given.

    Example:
        >>> lrs = [1e-4 * 10 ** (i / 20) for i in range(100)]
        >>> losses = [2.0 - 1.5 * min(i / 60, 1.0) + max(0, i - 70) ** 2 / 100 for i in range(100)]
        >>> result = RangeTestResult(tuple(lrs), tuple(losses), tuple(losses), "num_iter", lrs[-1])
        >>> result.suggestion("minimum") < result.unstable_lr
        True
    """

    iterations: int = 0
    step_mode: str = "exp"
    loss_name: str = "Loss"
    sweeps: tuple[SweepCurve, ...] = field(default=())
    verified: tuple[VerifiedRate, ...] = ()
    present_start: bool = False
    control: tuple[float, ...] = ()

    @classmethod
    def from_sweeps(cls, sweeps: Sequence[SweepCurve], *, smooth_f: float, **fields: Any) -> RangeTestResult:
        """Put one or several sweeps over the same rates together; ``fields`` are the other attributes."""
        curve = sweeps[0] if len(sweeps) == 1 else mean_of(sweeps, smooth_f)
        return cls(**vars(curve), sweeps=tuple(sweeps) if len(sweeps) > 1 else (), **fields)

    @property
    def groups(self) -> int:
        """The number of parameter groups."""
        return len(self.lrs[0]) if self.lrs and isinstance(self.lrs[0], tuple) else 1

    def suggestion(self, method: str | None = None, *, skip_start: int = 0, skip_end: int = 0) -> Rate:
        """The learning rate to train with: what trials confirmed, else what a rule reads off the curve.

        Args:
            method: None: the largest of the ``verified`` rates that learns (of trials from the edge, where the default
                rule abstains, the one that learnt most), without trials the default rule. Or a name from ``RULES``:
                the default rule reads the raw losses of every sweep, the others the smoothed, as their originals do.
            skip_start: points at the beginning that the rule does not see; with this or the next one the default rule
                answers for None.
            skip_end: likewise at the end, of every sweep.

        Returns:
            a rate; for several parameter groups a list with one for each: the rule is asked about the group with the
            largest rates, and the others get what they had at the same point of the sweep.

        Raises:
            NoSuggestionError: if no rate that was tried learns, or the rule cannot name one; says why.
            ValueError: if there is no rule of that name.
        """
        skip = _skipped(skip_start, skip_end)
        if method is None and self.verified and skip == (0, 0):
            return confirmed(self.verified, self._verdict)
        name = rules.DEFAULT if method is None else method
        if not isinstance(name, str):
            raise wrong_type("method", "a string or None", name)
        if name not in rules.RULES:
            raise wrong_value("method", f"one of {', '.join(sorted(rules.RULES))}", name)
        if name == rules.DEFAULT:
            verdict = self._verdict if skip == (0, 0) else self._judged(*skip)
            if verdict.lr is None:
                raise NoSuggestionError(verdict.reason)
            return self._for_groups(verdict.lr) if isinstance(self.lrs[0], tuple) else verdict.lr
        part = slice(skip[0], max(len(self.losses) - skip[1], 0))
        lrs, losses = _readable(leading_lrs(self.lrs)[part], self.smoothed_losses[part])
        if sum(1 for loss in losses if math.isfinite(loss)) < 2:
            raise NoSuggestionError(
                f"the sweep has {len(losses)} points, too few with a finite loss: it stopped with {self.stop_reason!r}"
            )
        return self._for_groups(rules.RULES[name](lrs, losses))

    def trials(self, updates: int) -> Trials:
        """The trials that verify this result, of ``updates`` updates each; see ``verify`` of ``LRFinder.attach``."""
        Whole(1, maximum=AT_ONCE).check("updates", updates)
        *axis, edge = leading_lrs([*self.lrs, self.stop_lr])
        return Trials(self.losses, self._verdict.lr, edge, axis[0] if axis else edge, updates)

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
    def reason(self) -> str:
        """What the default rule saw, in a sentence, and what to change where that would help."""
        return self._verdict.reason

    @property
    def interval(self) -> tuple[float, float] | None:
        """The smallest and the largest rate that the repeats suggest; None for a single sweep.

        For several groups, those of the group with the largest rates.
        """
        return self._verdict.interval

    @property
    def unstable_lr(self) -> float | None:
        """The smallest rate after which the loss stays above its starting level, or None.

        For several parameter groups, that of the group with the largest rates.
        """
        lrs, losses = _readable(leading_lrs(self.lrs), self.losses)
        try:
            return rules.unstable_lr(lrs, losses)
        except ValueError:  # not a curve
            return None

    def apply(self, optimizer: Optimizer, method: str | None = None, *, scheduler: Any = None) -> Rate:
        """Make the suggested rate the base rate of every parameter group, and write the rate that is due with it.

        Without a scheduler, that is the suggested rate. A :class:`ignite_lr.ScheduleLR` on this optimizer follows,
        whether it was made before or is made after: its rate is the suggested one times its factor. Rates that are
        tensors are filled in place.

        Args:
            optimizer: with as many groups as the swept one; any number of groups if that had one.
            method: see :meth:`suggestion`.
            scheduler: a scheduler that is not of this package, or a list of them: they keep base rates of their own
                (``base_lrs``), which are written too.

        Returns:
            the base rate: one, or a list of one for each parameter group.

        Raises:
            NoSuggestionError: if there is no suggestion; the optimizer is left alone.
            RuntimeError: inside the block of a range test on this optimizer, which would undo it.
            TypeError: if ``optimizer`` or ``scheduler`` is none.
            ValueError: if the number of parameter groups does not match, or ``scheduler`` is that of another optimizer.

        Warns:
            UserWarning: if a scheduler that is neither of this package nor given was made before, which keeps its own
                base rates; if a ``ScheduleLR`` with ``absolute=True`` does.
        """
        check_optimizer(optimizer)
        if is_suspended(optimizer):
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
        set_base_rates(optimizer, rates, scheduler)
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
            ax: axes to draw on; None makes a figure, pyplot's current one where pyplot is imported.
            title: over the picture.
            skip_start: points to leave out at the beginning.
            skip_end: points to leave out at the end.
            log_lr: whether the x axis is logarithmic; None: as the sweep was.
            suggestions: whether to mark what the rules suggest.

        Returns:
            the axes; ``.figure.savefig(path)`` writes the picture.

        Raises:
            ModuleNotFoundError: without Matplotlib.
            TypeError: if an argument is of the wrong type.
            ValueError: if ``skip_start`` or ``skip_end`` is negative.
        """
        first, last = _skipped(skip_start, skip_end)
        log = self.step_mode == "exp" if log_lr is None else Flag().check("log_lr", log_lr)
        suggestions = Flag().check("suggestions", suggestions)
        picture = picture_of(self, rules.DEFAULT, log)
        return draw_range_test(picture, ax, title, skip_start=first, skip_end=last, suggestions=suggestions)

    def to_html(self, path: str | os.PathLike[str], title: str | None = None) -> Path:
        """Write an interactive picture to one HTML file that needs nothing else, not even a network.

        Args:
            path: the file.
            title: over the picture.

        Returns:
            the path.

        Raises:
            ModuleNotFoundError: without Bokeh (``pip install bokeh``).
        """
        return range_test_html(picture_of(self, rules.DEFAULT, self.step_mode == "exp"), path, title)

    def page(self, title: str | None = None) -> Any:
        """The picture of :meth:`to_html` as a figure of Bokeh, for pages of your own.

        Raises:
            ModuleNotFoundError: without Bokeh.
        """
        return range_test_page(picture_of(self, rules.DEFAULT, self.step_mode == "exp"), title)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result as JSON (RFC 8259); non-finite numbers become strings.

        Returns:
            the path.
        """
        return write_result(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RangeTestResult:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: if the file is no range test result.
        """
        return cls(**read_result(path))

    def __repr__(self) -> str:
        verdict = self._verdict
        try:
            says = f"suggestion {text_of(self.suggestion())}"
        except NoSuggestionError as error:
            says = f"no suggestion ({error})"
        else:
            says += f", verified by {len(self.verified)} trials" if self.verified else ""
            says += f", confidence {verdict.confidence:.2f}" if verdict.lr is not None else ""
            if verdict.interval is not None:
                says += f", interval {verdict.interval[0]:.3g} to {verdict.interval[1]:.3g}"
        size = f"{len(self.losses)} points"
        size += f", {len(self.sweeps)} sweeps" if self.sweeps else ""
        return (
            f"<{type(self).__name__}: {says}; stopped by {self.stop_reason} at lr {text_of(self.stop_lr)}; "
            f"{size}, {self.iterations} iterations>"
        )

    def _repr_png_(self) -> bytes | None:
        """The picture, for notebooks."""
        return png(self.plot, *SIZE)

    @cached_property
    def _verdict(self) -> Verdict:
        return self._judged(0, 0)

    def _judged(self, skip_start: int, skip_end: int) -> Verdict:
        """What the default rule says about every sweep without so many of its points.

        Where it asks for lower rates, and nobody chose the first one, it adds where that came from.
        """
        verdict = self._read(skip_start, skip_end)
        if not (self.present_start and LOWER in verdict.reason):
            return verdict
        said = f"{verdict.reason}; without a start_lr the sweep began at the optimizer's present rate"
        return replace(verdict, reason=f"{said}, {text_of(self.lrs[0])}")

    def _read(self, skip_start: int, skip_end: int) -> Verdict:
        sweeps: tuple[SweepCurve, ...] = self.sweeps or (self,)
        longest = max((sweep.lrs for sweep in sweeps), key=len)
        lrs = (longest if self.groups == 1 else leading_lrs(longest))[skip_start:]
        parts = [sweep.losses[skip_start : max(len(sweep.losses) - skip_end, 0)] for sweep in sweeps]
        curves = [_readable(lrs[: len(losses)], losses)[1] for losses in parts]
        if not any(curves):
            return Verdict(None, 0.0, f"the sweep has no points: it stopped with {self.stop_reason!r}")
        try:
            return rules.judge_repeats(_readable(lrs, lrs)[0], curves)
        except ValueError as error:  # a result made or loaded by hand, whose rates are no curve
            return Verdict(None, 0.0, str(error))

    def _for_groups(self, rate: float) -> Rate:
        """The rates of all groups where the leading one has ``rate``."""
        return rate if self.groups == 1 else list(rates_of_groups(self.lrs, rate))


def _readable(lrs: Sequence[float], losses: Sequence[float]) -> tuple[list[float], list[float]]:
    """What the rules can work with: a linear sweep may begin at a rate of zero, which has no logarithm."""
    first = next((index for index, lr in enumerate(lrs) if lr > 0), len(lrs))
    return list(lrs[first:]), list(losses[first:])


def _skipped(skip_start: int, skip_end: int) -> tuple[int, int]:
    first, last = Whole(0).check("skip_start", skip_start), Whole(0).check("skip_end", skip_end)
    assert first is not None
    assert last is not None
    return first, last
