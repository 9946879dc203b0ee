"""What the updates of one optimizer used: captured at the update, named and read when it is wanted."""

from __future__ import annotations

import itertools
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine
from torch.optim import Optimizer

from ignite_lr import host
from ignite_lr.updates import Updates

__all__ = ["Record", "Source", "Track", "columns", "on_host", "restore", "state_of"]

_order = itertools.count()
_no_metrics: dict[str, Any] = {}


class Record(NamedTuple):
    """One update.

    Attributes:
        update: the number of the update of its optimizer, from 1.
        iteration: the trainer's iteration in which it was made, from 1.
        values: one value a kind and group, kinds first: floats, or scalars on a device. None where a group has none.
        clip: the clippers' metrics by name.
    """

    update: int
    iteration: int
    values: Sequence[Any]
    clip: Mapping[str, Any]


class Source:
    """One optimizer and the names of what it has.

    Args:
        name: of the optimizer.
        optimizer: the optimizer.
        prefix: of every tag.
        kinds: what is recorded of each group besides ``lr``, by the first part of its tag: a function of the group.
        taken: names in use, shared by all sources of one logger.
        history: how many records to keep.

    Attributes:
        updates: of the optimizer so far.
        keeps_history: whether records go into ``history``.
        history: the records of the last of them.
        clippers: whose metrics belong to these updates, each with what is put before the names of its metrics.
        kept: the names in use, a parameter group each.
        look: looks for the trainer of a step that nobody recorded.
        found: set by each update that is recorded; see :class:`~ignite_lr.step_hooks.Seeker`.
    """

    def __init__(
        self,
        name: str,
        optimizer: Optimizer,
        prefix: str,
        kinds: Mapping[str, Callable[[dict[str, Any]], Any]],
        taken: set[str],
        history: int,
    ) -> None:
        self.name = name
        self.optimizer = optimizer
        self.updates = 0
        self.keeps_history = history > 0
        # with a number that grows from record to record, over all optimizers
        self.history: deque[tuple[int, Record]] = deque(maxlen=history)
        self.clippers: list[tuple[Any, str]] = []
        self.kept: list[str] = []
        self.look: Callable[[Source], None] = lambda source: None
        self.found = False
        self._prefix = prefix
        self._kinds = ["lr", *kinds]
        self._more_kinds = list(kinds.values())
        self._taken = taken
        self._tags: dict[int, list[str]] = {}  # by the number of groups

    def restore(self, updates: int, kept: Sequence[str]) -> None:
        """Go on from a saved state: the updates so far, and the names that were in use."""
        self.updates = updates
        self._taken.difference_update(self.kept)
        self.kept = list(kept)
        self._tags.clear()
        self.history.clear()
        self._taken.update(self.kept)

    def seek(self) -> None:
        """A step began that nobody has recorded so far."""
        self.look(self)

    def capture(self) -> list[Any]:
        """The values that an update made now would use, safe from being written over."""
        groups = self.optimizer.param_groups
        if len(groups) == 1 and not self._more_kinds:  # the usual case, once an update
            value = groups[0]["lr"]
            return [value] if type(value) is float else [own(value)]
        values = [group["lr"] for group in groups]
        for kind in self._more_kinds:
            values += [kind(group) for group in groups]
        for value in values:
            if type(value) is not float:
                return [own(value) for value in values]
        return values

    def tagged(self, record: Record) -> dict[str, Any]:
        """The values of a record by tag."""
        groups = len(record.values) // len(self._kinds)
        if groups not in self._tags:
            paths = self.paths(groups)
            self._tags[groups] = [f"{self._prefix}{kind}/{path}" for kind in self._kinds for path in paths]
        named = {tag: value for tag, value in zip(self._tags[groups], record.values, strict=True) if value is not None}
        for name, value in record.clip.items():
            named[f"{self._prefix}clip/{name}"] = value
        return named

    def wanted_paths(self, groups: int) -> list[str]:
        """The names that the first groups would get if nothing had been named yet."""
        if groups == 1:
            return [self.name]
        return [f"{self.name}/{_label(group, i)}" for i, group in enumerate(self.optimizer.param_groups[:groups])]

    def paths(self, groups: int) -> list[str]:
        """The names of the first groups: those they had when they were first asked for."""
        if not self.kept:
            for index, path in enumerate(self.wanted_paths(groups)):
                self._keep(path, index)
        while len(self.kept) < groups:
            index = len(self.kept)
            present = self.optimizer.param_groups
            label = _label(present[index], index) if index < len(present) else f"group_{index}"
            self._keep(f"{self.name}/{label}", index)
        return self.kept[:groups]

    def _keep(self, path: str, index: int) -> None:
        unique = path
        while unique in self._taken:
            unique = f"{unique}_{index}"
        if unique != path:
            warnings.warn(
                f"LRLogger has the name {path!r} already and calls parameter group {index} of {self.name} {unique!r}.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._taken.add(unique)
        self.kept.append(unique)


class Track:
    """The updates that one trainer makes with a source. Its callbacks run once an update, and do little.

    Attributes:
        due: records to be written by the logger's own attach, oldest first.
        every: how many updates lie between two due ones; 0: none is ever due.
    """

    def __init__(self, source: Source, trainer: Engine, updates: Updates) -> None:
        self.source = source
        self.updates = updates
        self.due: list[Record] = []
        self.every = 0
        self._trainer = weakref.ref(trainer)
        self._coming: tuple[int, list[Any]] = (0, [])
        self._last: tuple[int, tuple[int, list[Any]], dict[str, Any]] | None = None

    @property
    def last(self) -> Record | None:
        """The record of the last update, if there was one."""
        if self._last is None:
            return None
        update, (iteration, values), clip = self._last
        return Record(update, iteration, values, clip)

    def forget(self) -> None:
        """Start as if no update had been made."""
        self._last, self.due = None, []

    def before(self) -> None:
        """An update is about to be made."""
        trainer = self._trainer()
        if trainer is None:
            return
        source = self.source
        source.found = True
        self._coming = (trainer.state.iteration, source.capture())

    def counted(self) -> None:
        """It was an update."""
        source = self.source
        source.updates = update = source.updates + 1
        clip = _no_metrics
        if source.clippers:
            clip = {
                prefix + name: value for clipper, prefix in source.clippers for name, value in clipper.metrics.items()
            }
        self._last = (update, self._coming, clip)
        if source.keeps_history:
            record = Record(update, *self._coming, clip)
            source.history.append((next(_order), record))
        if self.every and update % self.every == 0:
            self.due.append(Record(update, *self._coming, clip))

    def take_due(self) -> list[Record]:
        """The records due since the last call. Waits for the device only where the last step may be due."""
        if self.every and (self.source.updates + 1) % self.every == 0:
            self.updates.resolve()
        due, self.due = self.due, []
        return due


def own(value: Any) -> Any:
    """A tensor that nobody else writes to; anything else as it is."""
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def on_host(values: Sequence[Any]) -> list[Any]:
    """Numbers as floats, None as None. All that lie on a device come over in one copy."""
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    arrived = iter(host.read(tensors) if tensors else [])
    return [
        next(arrived) if isinstance(value, torch.Tensor) else None if value is None else float(value)
        for value in values
    ]


def columns(sources: Sequence[Source], step: str) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """The histories of all sources as arrays of one length; see ``LRLogger.history``."""
    records = [(order, record, source) for source in sources for order, record in source.history]
    rows: list[dict[str, Any]] = []
    steps: list[tuple[int, int]] = []
    present: set[str] = set()
    for _, record, source in sorted(records, key=lambda entry: entry[0]):
        if not rows or record.iteration != steps[-1][0] or source.name in present:
            rows.append({})
            steps.append((record.iteration, 0))
            present = set()
        present.add(source.name)
        rows[-1].update(source.tagged(record))
        steps[-1] = (record.iteration, max(steps[-1][1], record.update))
    tags = list(dict.fromkeys(tag for row in rows for tag in row))
    cells = on_host([row.get(tag, float("nan")) for row in rows for tag in tags])
    table = np.array(cells, dtype=np.float64).reshape(len(rows), len(tags))
    iterations, updates = np.array(steps, dtype=np.int64).reshape(len(rows), 2).T.copy()
    return {
        "step": iterations if step == "iteration" else updates.copy(),
        "update": updates,
        **{tag: table[:, column].copy() for column, tag in enumerate(tags)},
    }


def state_of(sources: Sequence[Source]) -> dict[str, Any]:
    """All of it as plain numbers, in one copy from where they are; see :func:`restore`."""
    records = [record for source in sources for _, record in source.history]
    numbers = iter(on_host([value for record in records for value in (*record.values, *record.clip.values())]))
    state: dict[str, Any] = {}
    for source in sources:
        history = [
            {
                "order": order,
                "update": record.update,
                "iteration": record.iteration,
                "values": [next(numbers) for _ in record.values],
                "clip": {name: next(numbers) for name in record.clip},
            }
            for order, record in source.history
        ]
        state[source.name] = {"updates": source.updates, "names": list(source.kept), "history": history}
    return state


def restore(sources: Sequence[Source], state: Mapping[str, Any]) -> None:
    """Go on from what :func:`state_of` gave.

    Raises:
        ValueError: if it gave something else; nothing is changed then.
    """
    for source in sources:
        _check(f"state_dict[{source.name!r}]", state[source.name])
    rows = [(row, source) for source in sources for row in state[source.name]["history"]]
    for source in sources:
        source.restore(state[source.name]["updates"], state[source.name]["names"])
    for row, source in sorted(rows, key=lambda pair: int(pair[0]["order"])):
        # a new process numbers from the start
        record = Record(row["update"], row["iteration"], row["values"], row["clip"])
        source.history.append((next(_order), record))


def _check(name: str, saved: Any) -> None:
    """Whether it is what :func:`state_of` gave for a source."""
    counts = ("order", "update", "iteration")
    well = (
        isinstance(saved, Mapping)
        and _is_count(saved.get("updates"))
        and isinstance(saved.get("names"), list)
        and all(isinstance(path, str) for path in saved["names"])
        and isinstance(saved.get("history"), list)
        and all(isinstance(row, Mapping) for row in saved["history"])
        and all(_is_count(row.get(key)) for row in saved["history"] for key in counts)
        and all(isinstance(row.get("values"), list) for row in saved["history"])
        and all(isinstance(row.get("clip"), Mapping) for row in saved["history"])
        and all(
            value is None or isinstance(value, int | float)
            for row in saved["history"]
            for value in (*row["values"], *row["clip"].values())
        )
    )
    if not well:
        raise ValueError(f"{name} must be what LRLogger.state_dict() gave, updates, names and history, got {saved!r}.")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _label(group: Mapping[str, Any], index: int) -> str:
    name = group.get("name")
    return f"group_{index}" if name is None else str(name)
