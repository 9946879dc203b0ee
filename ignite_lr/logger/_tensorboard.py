"""How TensorBoard is told: through PyTorch's writer, through tensorboardX, or through anything with ``add_scalar``.

With tensorboardX all values of a record make one event, written to its file here and now: 11 us of CPU time for one
value and 42 us for ten. ``add_summary`` of its file writer, which is the public way to do that, takes 45 and 85 us, and
``add_scalar`` for each value 50 and 550 us, because a queue between processes, two threads and pickle lie between, and
the last of them dies of a full disk without a word. Where that queue cannot be gone around, it is waited for.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ignite.handlers import TensorboardLogger

from ignite_lr.logger._names import Names, Rule

__all__ = ["flush", "takes_histograms", "write", "write_histogram"]


def write(logger: Any, values: Mapping[str, float], step: int) -> None:
    """Write values of one step."""
    writer = _writer_of(logger)
    if type(writer).__module__ != "tensorboardX.writer" or "add_scalar" in vars(writer):
        for tag, value in values.items():
            writer.add_scalar(tag, value, step)
        return
    if not writer._comet_config.get("disabled", False):
        for tag, value in values.items():
            _wait_for_room(writer)
            writer.add_scalar(_CLEANED[tag], value, step)
        return
    event_of, summary_of = _protocol()
    summary = summary_of(value=[summary_of.Value(tag=tag, simple_value=value) for tag, value in values.items()])
    file_writer = writer._get_file_writer()
    events: Any = getattr(file_writer, "event_writer", None)
    if writer.purge_step is None and hasattr(events, "_ev_writer"):
        events._ev_writer.write_event(event_of(wall_time=time.time(), step=step, summary=summary))
        events._worker._has_pending_data = True  # so that it is flushed when the thread next does so
    else:
        # what is to be purged is said in the queue, and must come first
        _wait_for_room(writer)
        file_writer.add_summary(summary, step)


# add_scalar of tensorboardX replaces characters, so that two names may become one
_CLEANED = Names(Rule(illegal=r"[^-/\w.]", paths=True))


@functools.cache
def _protocol() -> tuple[Any, Any]:
    """The messages that event files consist of. Imported when first used: tensorboardX takes a while."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    return Event, Summary


def takes_histograms(logger: Any) -> bool:
    """Whether it takes histograms; what has no more than ``add_scalar`` is a writer of numbers, and no failure."""
    return hasattr(_writer_of(logger), "add_histogram_raw")


def write_histogram(logger: Any, tag: str, edges: Sequence[float], counts: Sequence[int], step: int) -> None:
    """Write a histogram: ``counts[i]`` values lie between ``edges[i]`` and ``edges[i + 1]``."""
    filled = [index for index, count in enumerate(counts) if count > 0]
    if not filled:
        return
    bins = range(filled[0], filled[-1] + 1)
    lower = [edges[index] for index in bins]
    # an open last bin would have no place on the axis
    upper = [edges[index + 1] if math.isfinite(edges[index + 1]) else 10 * edges[index] for index in bins]
    kept = [counts[index] for index in bins]
    middles = [(low + high) / 2 for low, high in zip(lower, upper, strict=True)]
    writer = _writer_of(logger)
    _wait_for_room(writer)
    writer.add_histogram_raw(
        tag,
        min=lower[0],
        max=upper[-1],
        num=sum(kept),
        sum=sum(count * middle for count, middle in zip(kept, middles, strict=True)),
        sum_squares=sum(count * middle**2 for count, middle in zip(kept, middles, strict=True)),
        bucket_limits=upper,
        bucket_counts=kept,
        global_step=step,
    )


def flush(logger: Any) -> None:
    """Bring what was written to the operating system, so that a killed process does not take it along."""
    writer = _writer_of(logger)
    queue, thread = _queue_of(writer)
    if queue is not None and thread.is_alive():
        # What the thread takes out next, it takes when all before it is in the file: so an event without content.
        _wait_for_room(writer)
        writer.file_writer.add_event(_protocol()[0]())
        while thread.is_alive() and _holds_any(queue):
            time.sleep(0.0001)
    if callable(getattr(writer, "flush", None)):
        writer.flush()


def _writer_of(logger: Any) -> Any:
    return logger.writer if isinstance(logger, TensorboardLogger) else logger


def _queue_of(writer: Any) -> tuple[Any, Any]:
    """TensorboardX's queue and the thread that empties it, or None for both. PyTorch's writer looks after its own."""
    events = getattr(getattr(writer, "file_writer", None), "event_writer", None)
    queue, thread = getattr(events, "_event_queue", None), getattr(events, "_worker", None)
    return (queue, thread) if queue is not None and isinstance(thread, threading.Thread) else (None, None)


def _holds_any(queue: Any) -> bool:
    try:
        return bool(queue.qsize())
    except NotImplementedError:  # on macOS; there, what has not reached the pipe yet is not seen
        return not queue.empty()


def _wait_for_room(writer: Any) -> None:
    """Return once tensorboardX can take an event without blocking; raise if it never will.

    Its thread dies with the first failed write, silently, and its queue of ten then blocks the one who fills it, in
    ``close()`` too.
    """
    queue, thread = _queue_of(writer)
    if queue is None:
        return
    while thread.is_alive():
        if not queue.full():
            return
        time.sleep(0.0001)
    # what nobody will write makes room for the sign to stop that close() sends
    while not queue.empty():
        queue.get()
    raise OSError(f"the thread that writes the event files of {writer.file_writer.get_logdir()} has died")
