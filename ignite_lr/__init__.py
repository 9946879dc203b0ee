"""Handlers for PyTorch-Ignite trainers that find, schedule, protect and record the learning rate."""

from ignite_lr import schedules, suggestion
from ignite_lr.clipper import ClipReport, GradNormClipper
from ignite_lr.logger import JSONLinesLogger, LRLogger
from ignite_lr.lr_finder import LRFinder
from ignite_lr.range_test import RangeTestResult
from ignite_lr.scheduler import LRSchedulerHandler, ScheduleLR
from ignite_lr.suggestion import NoSuggestionError

__version__ = "0.1.0"

__all__ = [
    "ClipReport",
    "GradNormClipper",
    "JSONLinesLogger",
    "LRFinder",
    "LRLogger",
    "LRSchedulerHandler",
    "NoSuggestionError",
    "RangeTestResult",
    "ScheduleLR",
    "schedules",
    "suggestion",
]
