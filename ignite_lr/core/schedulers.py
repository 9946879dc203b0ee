"""Schedulers of anybody, looked at from outside: what they are made of, and what their ``step`` takes.

What flows in is a scheduler, what flows out are its parts, or an error that says which argument it wants. What must
never happen: that one is stepped, or changed, to find out.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from ignite_lr.core.arguments import shown

__all__ = ["check_takes", "parts_of"]


def parts_of(scheduler: Any) -> Iterator[Any]:
    """A scheduler, and those that it is made of."""
    yield scheduler
    inner = getattr(scheduler, "scheduler", None)
    several = getattr(scheduler, "_schedulers", ())
    for part in (*(several if isinstance(several, list | tuple) else ()), *(() if inner is None else (inner,))):
        if callable(getattr(part, "step", None)):
            yield from parts_of(part)


def check_takes(scheduler: Any, metric: Any) -> None:
    """See that the scheduler which really steps takes a metric where there is one, and needs none where there is none.

    Raises:
        ValueError: if not.
    """
    inner = getattr(scheduler, "scheduler", None)
    if callable(getattr(inner, "step", None)):  # a warmup passes it on
        check_takes(inner, metric)
        return
    try:
        parameters = list(inspect.signature(scheduler.step).parameters.values())
    except (TypeError, ValueError):  # not written in Python
        return
    taken = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
    by_epoch = not taken or taken[0].name == "epoch"
    needed = [p.name for p in taken if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    name = type(scheduler).__name__
    if metric is None and needed and not by_epoch:
        raise ValueError(f"metric must be given, because {name}.step() takes {', '.join(needed)}; got None.")
    if metric is not None and by_epoch:
        raise ValueError(f"metric must be None, because {name}.step() takes no metric; got {shown(metric)}.")
