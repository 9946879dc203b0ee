"""What applies schedules: ``ScheduleLR`` and ``ScheduleParam`` write numbers, ``LRSchedulerHandler`` says when.

What flows in are a schedule (a pure function from ``ignite_lr.schedules``, or any callable), an optimizer with its base
rates, and the updates that it makes in a trainer's iterations. What flows out is the rate of the next update, written
into the parameter groups, and a state that resumes exactly. What must never happen: a step of the scheduler without an
update, an update at a rate that the schedule does not say, a state that changes something when it is read.
"""

from ignite_lr.scheduler._handler import LRSchedulerHandler
from ignite_lr.scheduler._schedule_lr import ScheduleLR
from ignite_lr.scheduler._schedule_param import ScheduleParam

__all__ = ["LRSchedulerHandler", "ScheduleLR", "ScheduleParam"]
