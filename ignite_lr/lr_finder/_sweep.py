"""A range test as a plan of a dry run: one pass of rising rates, or several over the same rates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence

from ignite_lr.core.notice import notice
from ignite_lr.dry_run import DryRun, Pass, Passes, Record, is_one_shot
from ignite_lr.lr_finder._plan import SweepPlan
from ignite_lr.range_test import Curve, RangeTestResult, SweepCurve, Trials, leading_lrs, rates_of_groups

__all__ = ["sweep"]

STILL = 2.0**-20
"""A rate so far below the edge changes nothing: that of the control, where the sweep does not begin lower still."""


def sweep(engine: DryRun, plan: SweepPlan, deliver: Callable[[RangeTestResult], None]) -> Passes:
    """The passes of a range test.

    Args:
        engine: what runs them.
        plan: the arguments of the range test.
        deliver: given the result whenever there is more of it.
    """
    if plan.verify and is_one_shot(engine.data):
        raise ValueError(
            "verify needs data that can be read again, got a one-shot iterator: give a DataLoader or a list, or "
            "verify=0"
        )
    rates = plan.rates(plan.points(engine))
    curves: list[SweepCurve] = []
    reason = ""
    for index in range(plan.repeats):
        curve = Curve(rates, plan.smooth_f, plan.diverge_th)
        record = yield Pass(
            rates,
            stop=curve.add,
            skip_nonfinite=plan.skip_nonfinite,
            rewind=False,  # repeats are to see other batches
            measure=engine.validate,
            ahead=(plan.repeats - index - 1) * len(rates) + 2 * plan.verify,  # two trials are the least
            shown=lambda curve=curve: curve.smoothed[-1],  # type: ignore[misc]  # mypy cannot infer a lambda's default
        )
        reason = record.reason
        if curve.losses or not curves:
            curves.append(curve.freeze(reason, record.at))
        result = RangeTestResult.from_sweeps(
            curves,
            smooth_f=plan.smooth_f,
            iterations=engine.iterations,
            step_mode=plan.step_mode,
            loss_name="Loss" if engine.validate is None else "Validation loss",
            present_start=plan.present_start,
        )
        deliver(result)
    if reason in ("num_iter", "terminated"):
        notice("Run completed without loss diverging, increase end_lr, decrease diverge_th or look at lr_finder.plot()")
    trials = (yield from _tried(engine, result, plan)) if plan.verify else None
    if trials is not None:  # what ends a verification early leaves what the sweep found
        deliver(dataclasses.replace(result, verified=trials.verified, control=trials.control))


def _tried(engine: DryRun, result: RangeTestResult, plan: SweepPlan) -> Generator[Pass, Record, Trials | None]:
    """Trials at constant rates, each over the batches with which the sweep began; None where they ended early."""
    trials = result.trials(plan.verify)

    def trial(row: Sequence[float]) -> Pass:
        return Pass([row] * trials.updates, skip_nonfinite=plan.skip_nonfinite, measure=engine.validate, name="trial")

    while (rate := trials.upcoming()) is not None:
        row = rates_of_groups(result.lrs, rate)
        record = yield trial(row)
        if record.reason not in ("completed", "non_finite"):
            return None  # as does all that is yielded from here on
        trials.add(row[0] if len(row) == 1 else row, record.losses)
    if trials.undecided:
        largest, still = max(plan.starts), leading_lrs([result.stop_lr])[0] * STILL
        record = yield trial([start * min(1.0, still / largest) if largest else 0.0 for start in plan.starts])
        if record.reason == "completed":
            trials.compare(record.losses)
        elif record.reason != "non_finite":
            return None
    return trials
