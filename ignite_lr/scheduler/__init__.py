"""What applies a schedule: ``ScheduleLR`` writes rates, ``LRSchedulerHandler`` says when."""

from ignite_lr.scheduler._handler import LRSchedulerHandler
from ignite_lr.scheduler._schedule_lr import ScheduleLR

__all__ = ["LRSchedulerHandler", "ScheduleLR"]
