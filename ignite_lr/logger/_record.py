"""What the updates of one optimizer used: captured at the update, named and read when it is wanted."""

from __future__ import annotations

import itertools
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.optim import Optimizer

from ignite_lr.core import host

__all__ = ["Record", "Source", "on_host"]

_order = itertools.count()


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
        kinds: what is recorded of each group, by the first part of its tag: ``lr`` first.
        only_rates: whether nothing but ``lr`` is recorded.
        look: looks for the trainer of a step that nobody recorded.
        found: set by each update that is recorded; see :class:`~ignite_lr.core.step_hooks.Seeker`.
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
        self.only_rates = not kinds
        self.kinds = ["lr", *kinds]
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

    def keep(self, record: Record) -> None:
        """Add a record to the history, as the newest of all optimizers."""
        self.history.append((next(_order), record))

    def seek(self) -> None:
        """A step began that nobody has recorded so far."""
        self.look(self)

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

    def metrics(self) -> dict[str, Any]:
        """What the clippers say of the last update."""
        return {prefix + name: value for clipper, prefix in self.clippers for name, value in clipper.metrics.items()}

    def tagged(self, record: Record) -> dict[str, Any]:
        """The values of a record by tag."""
        groups = len(record.values) // len(self.kinds)
        if groups not in self._tags:
            paths = self.paths(groups)
            self._tags[groups] = [f"{self._prefix}{kind}/{path}" for kind in self.kinds for path in paths]
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


def own(value: Any) -> Any:
    """A tensor that nobody else writes to; anything else as it is."""
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def on_host(values: Sequence[Any]) -> list[Any]:
    """Numbers as floats, None as None. All that lie on a device come over in one copy."""
    for value in values:
        if type(value) is not float:
            break
    else:  # the usual case, once a written update
        return list(values)
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    arrived = iter(host.read(tensors) if tensors else [])
    return [
        next(arrived) if isinstance(value, torch.Tensor) else None if value is None else float(value)
        for value in values
    ]


def _label(group: Mapping[str, Any], index: int) -> str:
    name = group.get("name")
    return f"group_{index}" if name in (None, "") else str(name)
