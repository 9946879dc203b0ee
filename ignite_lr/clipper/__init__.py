"""Clipping at a percentile of recent gradient norms, and the report of how often.

What flows in: an optimizer about to step, its gradients complete, inside an iteration of a trainer. What flows out:
gradients no longer than the threshold, metrics of the update in ``trainer.state.metrics``, and on request a report, a
histogram, a picture and a state. ``_clipper`` is the handler; ``_gradients`` and ``_norm`` measure; then one of two
stories is told, ``_on_host`` or ``_on_device``, from the norm to the metrics; ``_state`` is what both remember and
``_report`` what follows from it; ``_step_orders`` and ``_step_guard`` are what an optimizer is told for one step.

What must never happen: a bit changed in an update that is not counted as clipped; a value read from a device in the
steady state; a norm of zero or one that is not finite in a window; anything left on an optimizer after its step.
"""

from ignite_lr.clipper._clipper import GradNormClipper
from ignite_lr.clipper._report import ClipReport

__all__ = ["ClipReport", "GradNormClipper"]
