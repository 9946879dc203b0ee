"""How each experiment logger is told a set of numbers, and in which names: one row of a table each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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

from ignite_lr.logger import _tensorboard
from ignite_lr.logger._json_lines import RULE as JSON_LINES
from ignite_lr.logger._json_lines import JSONLinesLogger
from ignite_lr.logger._names import Rule

__all__ = ["Writer", "writer_of"]


@dataclass(frozen=True)
class Writer:
    """How one kind of logger is told.

    Args:
        write: writes values by name at a step to a logger.
        names: what it takes in a name.
        write_histogram: writes a histogram to it, where it takes one that was made elsewhere.
        flush: brings to the disk what it holds back.
    """

    write: Callable[[Any, Mapping[str, float], int], None]
    names: Rule = field(default_factory=Rule)
    write_histogram: Callable[[Any, str, Sequence[float], Sequence[int], int], None] | None = None
    flush: Callable[[Any], None] | None = None


def writer_of(logger: Any) -> Writer:
    """How to write to this logger.

    Args:
        logger: one of Ignite's experiment loggers, :class:`~ignite_lr.JSONLinesLogger`, or a TensorBoard
            ``SummaryWriter`` of tensorboardX or PyTorch.

    Raises:
        TypeError: if nothing here knows how to write to it.
    """
    for kind, writer in _WRITERS.items():
        if isinstance(logger, kind):
            return writer
    if callable(getattr(type(logger), "add_scalar", None)):
        return _TENSORBOARD if _tensorboard.takes_histograms(logger) else Writer(_tensorboard.write)
    known = ", ".join(kind.__name__ for kind in _WRITERS)
    raise TypeError(
        f"LRLogger cannot write to a logger of type {type(logger).__name__}: it knows {known} and SummaryWriter."
    )


def _to_mlflow(logger: Any, values: Mapping[str, float], step: int) -> None:
    logger.log_metrics(dict(values), step=step)


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


_TENSORBOARD = Writer(_tensorboard.write, write_histogram=_tensorboard.write_histogram, flush=_tensorboard.flush)

_WRITERS: dict[type, Writer] = {
    TensorboardLogger: _TENSORBOARD,
    # a whole set of metrics is refused for one name
    MLflowLogger: Writer(_to_mlflow, Rule(illegal=r"[^\w\-. /]|^\.\.", longest=250, paths=True)),
    WandBLogger: Writer(_to_wandb),
    ClearMLLogger: Writer(_to_clearml, Rule(paths=True)),
    NeptuneLogger: Writer(_to_neptune, Rule(paths=True)),
    # it strips everything else, and writes "/" as "__" and the rest as "-"
    PolyaxonLogger: Writer(_to_polyaxon, Rule(illegal=r"[^A-Za-z0-9_/-]|__", paths=True)),
    VisdomLogger: Writer(_to_visdom),
    JSONLinesLogger: Writer(_to_json_lines, JSON_LINES),
}
