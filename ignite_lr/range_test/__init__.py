"""What a range test found."""

from ignite_lr.range_test._curve import Curve, SweepCurve, leading_lrs, rates_of_groups, sweep_rates
from ignite_lr.range_test._result import RangeTestResult
from ignite_lr.range_test._verified import Trials, VerifiedRate

__all__ = [
    "Curve",
    "RangeTestResult",
    "SweepCurve",
    "Trials",
    "VerifiedRate",
    "leading_lrs",
    "rates_of_groups",
    "sweep_rates",
]
