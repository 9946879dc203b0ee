"""A range test as a plan of a dry run: one pass of rising rates, or several over the same rates."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from ignite_lr.dry_run import DryRun, Pass, Passes
from ignite_lr.lr_finder._plan import SweepPlan
from ignite_lr.range_test import Curve, RangeTestResult, SweepCurve

__all__ = ["sweep"]


def sweep(engine: DryRun, plan: SweepPlan, deliver: Callable[[RangeTestResult], None]) -> Passes:
    """The passes of a range test.

    Args:
        engine: what runs them.
        plan: the arguments of the range test.
        deliver: given the result whenever there is more of it.
    """
    rates = plan.rates(plan.points(engine))
    curves: list[SweepCurve] = []
    reason = ""
    for index in range(plan.repeats):
        curve = Curve(rates, plan.smooth_f, plan.diverge_th)
        record = yield Pass(
            rates,
            stop=curve.add,
            rewind=False,  # repeats are to see other batches
            measure=engine.validate,
            ahead=(plan.repeats - index - 1) * len(rates),
            shown=lambda curve=curve: curve.smoothed[-1],  # type: ignore[misc]  # mypy cannot infer a lambda's default
        )
        reason = record.reason
        if curve.losses or not curves:
            curves.append(curve.freeze(reason, record.at))
        deliver(
            RangeTestResult.from_sweeps(
                curves,
                smooth_f=plan.smooth_f,
                iterations=engine.iterations,
                step_mode=plan.step_mode,
                loss_name="Loss" if engine.validate is None else "Validation loss",
            )
        )
    if reason in ("num_iter", "terminated"):
        warnings.warn(
            "Run completed without loss diverging, increase end_lr, decrease diverge_th or look at lr_finder.plot()",
            UserWarning,
            stacklevel=2,
        )
