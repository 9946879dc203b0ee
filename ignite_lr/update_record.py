"""What the updates of one optimizer used: captured at the update, named and read when it is wanted."""

from __future__ import annotations

import itertools
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.optim import Optimizer

from ignite_lr import host
from ignite_lr.updates import Updates

__all__ = ["Record", "Source", "Track", "columns", "on_host", "restore", "state_of"]

_order = itertools.count()


class Record(NamedTuple):
    """One update.

    Attributes:
        order: grows from record to record, over all optimizers.
        update: the number of the update of its optimizer, from 1.
        iteration: the trainer's iteration in which it was made, from 1.
        values: one value a kind and group, kinds first: floats, or scalars on a device. None where a group has none.
        clip: the clippers' metrics by name.
    """

    order: int
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
        history: the records of the last of them.
        clippers: whose metrics belong to these updates.
        kept: the names in use, a parameter group each.
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
        self.history: deque[Record] = deque(maxlen=history)
        self.clippers: list[Any] = []
        self.kept: list[str] = []
        self.found = False
        self._prefix = prefix
        self._kinds = ["lr", *kinds]
        self._more_kinds = list(kinds.values())
        self._taken = taken

    def restore(self, updates: int, kept: Sequence[str]) -> None:
        """Go on from a saved state: the updates so far, and the names that were in use."""
        self.updates = updates
        self._taken.difference_update(self.kept)
        self.kept = list(kept)
        self.history.clear()
        self._taken.update(self.kept)

    def capture(self) -> list[Any]:
        """The values that an update made now would use, safe from being written over."""
        groups = self.optimizer.param_groups
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
        paths = self.paths(groups)
        tags = (f"{self._prefix}{kind}/{path}" for kind in self._kinds for path in paths)
        named = {tag: value for tag, value in zip(tags, record.values, strict=True) if value is not None}
        return named | {f"{self._prefix}clip/{name}": value for name, value in record.clip.items()}

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
    """The updates that one trainer makes with a source.

    Attributes:
        last: the record of the last update, or None.
        due: records to be written by the logger's own attach, oldest first.
        every: how many updates lie between two due ones; 0: none is ever due.
    """

    def __init__(self, source: Source, updates: Updates) -> None:
        self.source = source
        self.updates = updates
        self.last: Record | None = None
        self.due: list[Record] = []
        self.every = 0
        self._iteration = 0
        self._values: list[Any] = []

    def before(self) -> None:
        """An update is about to be made."""
        trainer = self.updates.trainer
        if trainer is None:
            return
        self.source.found = True
        self._iteration = trainer.state.iteration
        self._values = self.source.capture()

    def counted(self) -> None:
        """It was an update."""
        source = self.source
        source.updates += 1
        clip = {name: value for clipper in source.clippers for name, value in clipper.metrics.items()}
        self.last = record = Record(next(_order), source.updates, self._iteration, self._values, clip)
        source.history.append(record)
        if self.every and source.updates % self.every == 0:
            self.due.append(record)

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
    records = [(record, source) for source in sources for record in source.history]
    rows: list[dict[str, Any]] = []
    steps: list[tuple[int, int]] = []
    present: set[str] = set()
    for record, source in sorted(records, key=lambda pair: pair[0].order):
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
    records = [record for source in sources for record in source.history]
    numbers = iter(on_host([value for record in records for value in (*record.values, *record.clip.values())]))
    state: dict[str, Any] = {}
    for source in sources:
        history = [
            {
                "order": record.order,
                "update": record.update,
                "iteration": record.iteration,
                "values": [next(numbers) for _ in record.values],
                "clip": {name: next(numbers) for name in record.clip},
            }
            for record in source.history
        ]
        state[source.name] = {"updates": source.updates, "names": list(source.kept), "history": history}
    return state


def restore(sources: Sequence[Source], state: Mapping[str, Any]) -> None:
    """Go on from what :func:`state_of` gave."""
    rows = [(row, source) for source in sources for row in state[source.name]["history"]]
    for source in sources:
        source.restore(state[source.name]["updates"], state[source.name]["names"])
    for row, source in sorted(rows, key=lambda pair: int(pair[0]["order"])):
        # a new process numbers from the start
        source.history.append(Record(**{**row, "order": next(_order)}))


def _label(group: Mapping[str, Any], index: int) -> str:
    name = group.get("name")
    return f"group_{index}" if name is None else str(name)
