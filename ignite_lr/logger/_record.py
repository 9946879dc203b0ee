"""What one update used, by name: captured at the update, named and read when it is wanted.

Everything here may be held by the hooks of an optimizer, so it holds neither the optimizer nor a clipper: a training
that was dropped is freed without the collector's help.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.optim import Optimizer

from ignite_lr.core import host
from ignite_lr.core.notice import notice

__all__ = ["Record", "Source", "named"]


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
        optimizer: the optimizer, held weakly.
        prefix: of every tag.
        kinds: what is recorded of each group besides ``lr``, by the first part of its tag: a function of the group.
        taken: names in use, shared by all sources of one logger.
        order: numbers the records that are kept, likewise shared.
        history: how many records to keep.

    Attributes:
        updates: of the optimizer so far.
        history: the records of the last of them, each with its place among those of all optimizers.
        keeps_history: whether any are kept.
        clips: whether the metrics of clippers go with the updates.
        kept: the names in use, a parameter group each.
        kinds: what is recorded of each group, by the first part of its tag: ``lr`` first.
        only_rates: whether nothing but ``lr`` is recorded.
    """

    def __init__(
        self,
        name: str,
        optimizer: Optimizer,
        prefix: str,
        kinds: Mapping[str, Callable[[dict[str, Any]], Any]],
        taken: set[str],
        order: Iterator[int],
        history: int,
    ) -> None:
        self.name = name
        self.updates = 0
        self.history: deque[tuple[int, Record]] = deque(maxlen=history)
        self.keeps_history = history > 0
        self.clips = False
        self.kept: list[str] = []
        self.kinds = ["lr", *kinds]
        self.only_rates = not kinds
        self._optimizer = weakref.ref(optimizer)
        self._clippers: list[tuple[weakref.ref[Any], str]] = []
        self._prefix = prefix
        self._more_kinds = list(kinds.values())
        self._taken = taken
        self._order = order
        self._tags: dict[int, list[str]] = {}  # by the number of groups

    @property
    def alive(self) -> Optimizer | None:
        """The optimizer, or None once it is gone."""
        return self._optimizer()

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer, which whoever asks holds in some other way."""
        optimizer = self._optimizer()
        assert optimizer is not None
        return optimizer

    @property
    def clippers(self) -> list[tuple[Any, str]]:
        """Whose metrics belong to these updates, each with what is put before the names of its metrics."""
        return [(clipper, prefix) for weak, prefix in self._clippers if (clipper := weak()) is not None]

    def add_clipper(self, clipper: Any, prefix: str) -> None:
        """Let the metrics of a clipper, held weakly, go with these updates."""
        self._clippers.append((weakref.ref(clipper), prefix))
        self.clips = True

    def restore(self, updates: int, kept: Sequence[str]) -> None:
        """Go on from a saved state: the updates so far, and the names that were in use. The history is empty then."""
        self.updates = updates
        self._taken.difference_update(self.kept)
        self.kept = list(kept)
        self._taken.update(self.kept)
        self._tags.clear()
        self.history.clear()

    def capture(self, groups: Sequence[dict[str, Any]]) -> list[Any]:
        """The values that an update of these groups made now would use, safe from being written over."""
        values = [group["lr"] for group in groups]
        for kind in self._more_kinds:
            values += [kind(group) for group in groups]
        for value in values:
            if type(value) is not float:
                return [own(value) for value in values]
        return values

    def keep(self, record: Record) -> None:
        """Add a record to the history, as the newest of all optimizers."""
        self.history.append((next(self._order), record))

    def metrics(self) -> dict[str, Any]:
        """What the clippers say of the last update."""
        return {prefix + name: value for clipper, prefix in self.clippers for name, value in clipper.metrics.items()}

    def tagged(self, record: Record) -> dict[str, Any]:
        """The values of a record by tag."""
        groups = len(record.values) // len(self.kinds)
        if groups not in self._tags:
            paths = self.paths(groups)
            self._tags[groups] = [f"{self._prefix}{kind}/{path}" for kind in self.kinds for path in paths]
        values = {tag: value for tag, value in zip(self._tags[groups], record.values, strict=True) if value is not None}
        for name, value in record.clip.items():
            values[f"{self._prefix}clip/{name}"] = value
        return values

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
            notice(
                f"LRLogger has the name {path!r} already and calls parameter group {index} of {self.name} {unique!r}.",
                RuntimeWarning,
            )
        self._taken.add(unique)
        self.kept.append(unique)


def own(value: Any) -> Any:
    """A tensor that nobody else writes to; anything else as it is."""
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def named(entries: Sequence[tuple[Source, Record]]) -> list[dict[str, float]]:
    """Numbers by tag of each record; all that lie on a device come over in one copy."""
    tagged = [source.tagged(record) for source, record in entries]
    for values in tagged:
        for value in values.values():
            if type(value) is not float:
                _bring_over(tagged)
                return tagged
    return tagged  # the usual case, once a written update


def _bring_over(tagged: Sequence[dict[str, Any]]) -> None:
    numbers = iter(host.numbers([value for values in tagged for value in values.values()]))
    for values in tagged:
        for tag in values:
            values[tag] = next(numbers)


def _label(group: Mapping[str, Any], index: int) -> str:
    name = group.get("name")
    return f"group_{index}" if name in (None, "") else str(name)
