"""Clipping at a percentile of recent gradient norms, and the report of how often."""

from ignite_lr.clipper._clipper import GradNormClipper
from ignite_lr.clipper._report import ClipReport

__all__ = ["ClipReport", "GradNormClipper"]
