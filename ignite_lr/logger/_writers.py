"""How each experiment logger is told a set of numbers: one function a logger, found by :func:`writer_of`."""

from __future__ import annotations

import functools
import math
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ignite.handlers import (
    ClearMLLogger,
    MLflowLogger,
    NeptuneLogger,
    PolyaxonLogger,
    TensorboardLogger,
    VisdomLogger,
    WandBLogger,
)

from ignite_lr.logger._json_lines import JSONLinesLogger

__all__ = ["Write", "histogram_writer_of", "writer_of"]

Write = Callable[[Any, Mapping[str, float], int], None]


def writer_of(logger: Any) -> Write:
    """The function that writes tagged values at a step to this logger.

    Args:
        logger: one of Ignite's experiment loggers, :class:`~ignite_lr.JSONLinesLogger`, or a TensorBoard
            ``SummaryWriter`` of tensorboardX or PyTorch.

    Raises:
        TypeError: if nothing here knows how to write to it.
    """
    for kind, write in _WRITERS.items():
        if isinstance(logger, kind):
            return write
    if callable(getattr(type(logger), "add_scalar", None)):
        return _to_tensorboard
    known = ", ".join(kind.__name__ for kind in _WRITERS)
    raise TypeError(
        f"LRLogger cannot write to a logger of type {type(logger).__name__}: it knows {known} and SummaryWriter."
    )


def histogram_writer_of(
    logger: Any,
) -> Callable[[Any, str, Sequence[float], Sequence[int], int], None] | None:
    """The function that writes a histogram to this logger, or None where it takes no histogram made elsewhere."""
    if writer_of(logger) is not _to_tensorboard:
        return None
    # what has no more than add_scalar() is a writer of numbers, and no failure
    return _histogram_to_tensorboard if hasattr(getattr(logger, "writer", logger), "add_histogram_raw") else None


def _to_tensorboard(logger: Any, values: Mapping[str, float], step: int) -> None:
    writer = _summary_writer(logger)
    events = _open_event_file(writer)
    if events is None:
        for tag, value in values.items():
            _wait_for_room(writer)
            writer.add_scalar(tag, value, step)
        return
    event_of, summary_of = _protocol()
    scalars = [summary_of.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    event = event_of(wall_time=time.time(), step=step, summary=summary_of(value=scalars))
    events._ev_writer.write_event(event)
    events._worker._has_pending_data = True  # so that it is flushed when the thread next does so


@functools.cache
def _protocol() -> tuple[Any, Any]:
    """The messages that event files consist of. Imported when first used: tensorboardX takes a while."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    return Event, Summary


def _open_event_file(writer: Any) -> Any:
    """TensorboardX's way to its file, where nothing says that ``add_scalar`` has more to do than to write there.

    All values of a record make one event, written here and now. Through the queue each value is pickled and handed on
    by two threads, which takes longer than the rest of a
    short iteration, and a full disk kills the last of them.
    """
    kind = type(writer)
    if kind.__module__ != "tensorboardX.writer" or kind.add_scalar.__module__ != kind.__module__:
        return None
    if "add_scalar" in vars(writer) or writer.purge_step is not None or not writer._write_to_disk:
        return None
    if not writer._comet_config.get("disabled", False):
        return None
    events = writer._get_file_writer().event_writer
    if not hasattr(getattr(events, "_ev_writer", None), "write_event"):
        return None
    return events if isinstance(events._worker, threading.Thread) and events._worker.is_alive() else None


def _to_mlflow(logger: Any, values: Mapping[str, float], step: int) -> None:
    # MLflow refuses a whole set for one character that it does not like in a name
    logger.log_metrics({re.sub(r"[^\w\-. /]", "_", tag): value for tag, value in values.items()}, step=step)


def _to_wandb(logger: Any, values: Mapping[str, float], step: int) -> None:
    # W&B drops what lies before its present step, where another handler may have been already in this iteration.
    present = getattr(getattr(logger, "run", None), "step", None)
    logger.log(dict(values), step=max(step, present) if isinstance(present, int) else step)


def _to_clearml(logger: Any, values: Mapping[str, float], step: int) -> None:
    for tag, value in values.items():
        title, _, series = tag.rpartition("/")
        logger.clearml_logger.report_scalar(title=title, series=series, iteration=step, value=value)


def _to_neptune(logger: Any, values: Mapping[str, float], step: int) -> None:
    for tag, value in values.items():
        # Neptune raises for these, and a norm that overflowed must not end the other curves
        if math.isfinite(value):
            logger[tag].append(value, step=step)


def _to_polyaxon(logger: Any, values: Mapping[str, float], step: int) -> None:
    logger.log_metrics(**values, step=step)


def _to_visdom(logger: Any, values: Mapping[str, float], step: int) -> None:
    # the windows that Visdom gave the tags, kept where they belong: with the connection
    windows = vars(logger).setdefault("_ignite_lr_windows", {})
    for tag, value in values.items():
        line = {
            "X": [step],
            "Y": [value],
            "env": logger.vis.env,
            "win": windows.get(tag),
            "update": "append" if tag in windows else None,
            "opts": {"title": tag, "xlabel": "step", "ylabel": tag, "showlegend": False},
            "name": tag,
        }
        future = logger.executor.submit(logger.vis.line, **line)
        if tag not in windows:
            windows[tag] = future.result()
    logger._save()


def _to_json_lines(logger: Any, values: Mapping[str, float], step: int) -> None:
    logger.write(values, step)


def _histogram_to_tensorboard(logger: Any, tag: str, edges: Sequence[float], counts: Sequence[int], step: int) -> None:
    filled = [index for index, count in enumerate(counts) if count > 0]
    if not filled:
        return
    bins = range(filled[0], filled[-1] + 1)
    lower = [edges[index] for index in bins]
    # an open last bin would have no place on the axis
    upper = [edges[index + 1] if math.isfinite(edges[index + 1]) else 10 * edges[index] for index in bins]
    kept = [counts[index] for index in bins]
    middles = [(low + high) / 2 for low, high in zip(lower, upper, strict=True)]
    writer = _summary_writer(logger)
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


def _summary_writer(logger: Any) -> Any:
    return logger.writer if isinstance(logger, TensorboardLogger) else logger


def _wait_for_room(writer: Any) -> None:
    """Return once tensorboardX can take an event without blocking; raise if it never will.

    Its thread dies with the first failed write, silently, and its queue of ten then blocks the one who fills it, in
    ``close()`` too. PyTorch's writer notices by itself.
    """
    events = getattr(getattr(writer, "file_writer", None), "event_writer", None)
    queue, thread = getattr(events, "_event_queue", None), getattr(events, "_worker", None)
    if events is None or queue is None or not isinstance(thread, threading.Thread):
        return
    while thread.is_alive():
        if not queue.full():
            return
        time.sleep(0.0001)
    # what nobody will write makes room for the sign to stop that close() sends
    while not queue.empty():
        queue.get()
    raise OSError(f"the thread that writes the event files of {events.get_logdir()} has died")


_WRITERS: dict[type, Write] = {
    TensorboardLogger: _to_tensorboard,
    MLflowLogger: _to_mlflow,
    WandBLogger: _to_wandb,
    ClearMLLogger: _to_clearml,
    NeptuneLogger: _to_neptune,
    PolyaxonLogger: _to_polyaxon,
    VisdomLogger: _to_visdom,
    JSONLinesLogger: _to_json_lines,
}
