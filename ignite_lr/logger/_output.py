"""Writing records to experiment loggers: each update once, and no more to a logger that failed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine

from ignite_lr.core.notice import notice
from ignite_lr.logger._names import Names
from ignite_lr.logger._record import Record, named
from ignite_lr.logger._writers import writer_of

if TYPE_CHECKING:
    from ignite_lr.logger._recording import Track

__all__ = ["Output"]


class Output:
    """Writes records to any number of loggers, and remembers what each of them has.

    Args:
        prefix: of the tags of histograms.
        step: ``"iteration"`` or ``"update"``: what x is.
        global_step_transform: gives x instead, of the engine and the event.
        on_error: ``"warn"`` or ``"raise"``.
    """

    def __init__(
        self, prefix: str, step: str, global_step_transform: Callable[[Engine, Any], int] | None, on_error: str
    ) -> None:
        self._prefix = prefix
        self._step = step
        self._global_step_transform = global_step_transform
        self._on_error = on_error
        self._targets: weakref.WeakKeyDictionary[Any, _Target] = weakref.WeakKeyDictionary()

    def target(self, logger: Any) -> _Target:
        """What is known of this logger, from when it is first seen.

        Raises:
            TypeError: if nothing here can write to it.
        """
        try:
            target = self._targets.get(logger)
        except TypeError:  # cannot be a key, so it is none of those that are known
            writer_of(logger)
            raise
        if target is None:
            target = self._targets[logger] = _Target(logger)
        return target

    def write(self, engine: Engine, logger: Any, records: Sequence[tuple[Track, Record]], event_name: Any) -> None:
        """Write those records that the logger does not have yet, on rank 0, with one copy from where they are.

        Raises:
            TypeError: if nothing here can write to it.
        """
        target = self.target(logger)
        if target.failed or not _is_writing_rank():
            return
        steps, missing = [], []
        for track, record in records:
            if record.update > target.has.get(track, 0):
                target.has[track] = record.update
                steps.append(self._step_of(engine, record, event_name))
                missing.append((track.source, record))
        if not missing:
            return
        by_step: dict[int, dict[str, float]] = {}
        for step, values in zip(steps, named(missing), strict=True):
            row = by_step.setdefault(step, {})
            for tag, value in values.items():
                row[target.names[tag]] = value
        try:
            for step, values in by_step.items():
                target.writer.write(logger, values, step)
        except Exception as error:
            self._give_up(target, logger, error)

    def write_histograms(self, engine: Engine, tracks: Sequence[Track], event_name: Any) -> None:
        """Write the clippers' histograms to the loggers that got values, and take histograms."""
        for logger, target in list(self._targets.items()):
            if target.writer.write_histogram is None or target.failed:
                continue
            for track in tracks:
                # what got no values gets no histogram: no event of it ever fired, or this is not the writing rank
                if track not in target.has or track.latest is None:
                    continue
                for clipper, prefix in track.source.clippers:
                    if not hasattr(clipper, "histogram"):
                        continue
                    edges, counts = clipper.histogram()
                    if target.has.get(clipper) == sum(counts):
                        continue
                    target.has[clipper] = sum(counts)
                    step = self._step_of(engine, Record(*track.latest), event_name)
                    name = target.names[f"{self._prefix}clip/{prefix}grad_norm_histogram"]
                    try:
                        target.writer.write_histogram(logger, name, edges, counts, step)
                    except Exception as error:
                        self._give_up(target, logger, error)
                        return

    def flush(self) -> None:
        """Bring what was written to the disk, where a logger holds it back. A logger that fails is left alone."""
        for logger, target in list(self._targets.items()):
            if target.writer.flush is not None and target.has and not target.failed:
                try:
                    target.writer.flush(logger)
                except Exception as error:
                    self._leave_alone(target, logger, error)

    def forget(self) -> None:
        """Take no update for written."""
        for target in self._targets.values():
            target.has.clear()

    def _step_of(self, engine: Engine, record: Record, event_name: Any) -> int:
        if self._global_step_transform is None:
            return record.iteration if self._step == "iteration" else record.update
        step = self._global_step_transform(engine, event_name)
        if not isinstance(step, int):
            raise TypeError(f"global_step_transform must return an int, got {type(step).__name__}.")
        return step

    def _give_up(self, target: _Target, logger: Any, error: Exception) -> None:
        if self._on_error == "raise":
            raise error
        self._leave_alone(target, logger, error)

    def _leave_alone(self, target: _Target, logger: Any, error: Exception) -> None:
        target.failed = True
        notice(
            f"{type(logger).__name__} failed, and LRLogger writes no more to it: {type(error).__name__}: {error}. "
            "The training goes on.",
            RuntimeWarning,
        )


class _Target:
    """A logger that is written to.

    Attributes:
        writer: how it is told.
        names: what the tags are called there.
        has: the last update of each track that it has, and of each clipper the number of norms in its histogram.
        failed: whether it is left alone.
    """

    def __init__(self, logger: Any) -> None:
        self.writer = writer_of(logger)
        self.names = Names(self.writer.names)
        self.has: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self.failed = False


def _is_writing_rank() -> bool:
    # not through idist where it can be avoided: its first call may be a collective one, which would wait for all ranks
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() == 0
    return idist.get_rank() == 0
