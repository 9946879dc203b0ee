"""What a range test found: the curve, what the rules and the trials say about it, its file and its pictures.

In flow the points of sweeps (``Curve`` records them and says when to stop) and the losses of trials. Out flows a frozen
``RangeTestResult``: it suggests, applies a rate, saves itself, and draws itself with Matplotlib or Bokeh from one set
of plain numbers. What must never happen: that a result changes, that its picture or repr raises because there is no
suggestion, that anything here trains, and that reading a file of somebody else's ends in anything but a ``ValueError``
which names it.
"""

from ignite_lr.range_test._curve import Curve, SweepCurve, leading_lrs, rates_of_groups, smooth, sweep_rates
from ignite_lr.range_test._result import RangeTestResult
from ignite_lr.range_test._verified import Trials, VerifiedRate
from ignite_lr.suggestion import NoSuggestionError

__all__ = [
    "Curve",
    "NoSuggestionError",
    "RangeTestResult",
    "SweepCurve",
    "Trials",
    "VerifiedRate",
    "leading_lrs",
    "rates_of_groups",
    "smooth",
    "sweep_rates",
]
