"""Handlers for PyTorch-Ignite trainers that find, schedule, protect and record the learning rate.

The rooms are loaded when something in them is asked for: whoever schedules does not wait for the finder.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ignite_lr import schedules, suggestion
    from ignite_lr.clipper import ClipReport, GradNormClipper
    from ignite_lr.logger import JSONLinesLogger, LRLogger
    from ignite_lr.lr_finder import LRFinder, find_lr
    from ignite_lr.range_test import RangeTestResult, VerifiedRate
    from ignite_lr.report import run_report
    from ignite_lr.scheduler import LRSchedulerHandler, ScheduleLR, ScheduleParam
    from ignite_lr.study import Finding, LRStudy, StudyResult, Trial, TrialResult, run_study, trials
    from ignite_lr.suggestion import NoSuggestionError

__version__ = "0.2.0"

__all__ = [
    "ClipReport",
    "Finding",
    "GradNormClipper",
    "JSONLinesLogger",
    "LRFinder",
    "LRLogger",
    "LRSchedulerHandler",
    "LRStudy",
    "NoSuggestionError",
    "RangeTestResult",
    "ScheduleLR",
    "ScheduleParam",
    "StudyResult",
    "Trial",
    "TrialResult",
    "VerifiedRate",
    "find_lr",
    "run_report",
    "run_study",
    "schedules",
    "suggestion",
    "trials",
]

# where the names above live; rooms that are names themselves live in this package
_ROOMS = {
    "ClipReport": "clipper",
    "GradNormClipper": "clipper",
    "JSONLinesLogger": "logger",
    "LRFinder": "lr_finder",
    "LRLogger": "logger",
    "LRSchedulerHandler": "scheduler",
    "NoSuggestionError": "suggestion",
    "RangeTestResult": "range_test",
    "ScheduleLR": "scheduler",
    "ScheduleParam": "scheduler",
    "Finding": "study",
    "LRStudy": "study",
    "StudyResult": "study",
    "Trial": "study",
    "TrialResult": "study",
    "run_report": "report",
    "run_study": "study",
    "trials": "study",
    "VerifiedRate": "range_test",
    "find_lr": "lr_finder",
}
_FACES = {"clipper", "logger", "lr_finder", "range_test", "report", "scheduler", "schedules", "study", "suggestion"}


def __getattr__(name: str) -> Any:
    if name in _FACES:
        return import_module(f"ignite_lr.{name}")
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # kept, so that it is asked for once
    value = globals()[name] = getattr(import_module(f"ignite_lr.{_ROOMS[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
