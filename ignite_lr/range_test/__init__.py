"""What a range test found."""

from ignite_lr.range_test._curve import Curve, SweepCurve, leading_lrs, sweep_rates
from ignite_lr.range_test._result import RangeTestResult

__all__ = ["Curve", "RangeTestResult", "SweepCurve", "leading_lrs", "sweep_rates"]
