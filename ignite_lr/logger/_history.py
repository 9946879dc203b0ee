"""The records that were kept: as columns for pictures and tables, and as a saved state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ignite_lr.core.arguments import MOST, shown
from ignite_lr.core.host import numbers
from ignite_lr.logger._record import Record, Source

__all__ = ["columns", "restore", "state_of"]


def columns(sources: Sequence[Source], step: str) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """The histories of all sources as arrays of one length; see ``LRLogger.history``."""
    rows: list[dict[str, Any]] = []
    steps: list[tuple[int, int]] = []
    present: set[str] = set()
    for source, record in _in_order(sources):
        if not rows or record.iteration != steps[-1][0] or source.name in present:
            rows.append({})
            steps.append((record.iteration, 0))
            present = set()
        present.add(source.name)
        rows[-1].update(source.tagged(record))
        steps[-1] = (record.iteration, max(steps[-1][1], record.update))
    tags = list(dict.fromkeys(tag for row in rows for tag in row))
    cells = numbers([row.get(tag, float("nan")) for row in rows for tag in tags])
    table = np.array(cells, dtype=np.float64).reshape(len(rows), len(tags))
    iterations, updates = np.array(steps, dtype=np.int64).reshape(len(rows), 2).T.copy()
    return {
        "step": iterations if step == "iteration" else updates.copy(),
        "update": updates,
        **{tag: table[:, column].copy() for column, tag in enumerate(tags)},
    }


def state_of(sources: Sequence[Source]) -> dict[str, Any]:
    """All of it as plain numbers, in one copy from where they are; see :func:`restore`.

    For each source the same keys whatever it holds, and lists without dicts in them: that is what
    ``torch.distributed.checkpoint`` takes, which loads into the state of a fresh object. A row of the history is its
    place among those of all sources, the update, the iteration, the values, and the clippers' metrics as pairs.
    """
    records = _in_order(sources)
    values = [value for _, record in records for value in (*record.values, *record.clip.values())]
    arrived = iter(numbers([value for value in values if value is not None]))
    state: dict[str, Any] = {
        source.name: {
            "updates": source.updates,
            "names": list(source.kept),
            "kinds": list(source.kinds),
            "history": [],
        }
        for source in sources
    }
    for place, (source, record) in enumerate(records):
        mine = [None if value is None else next(arrived) for value in record.values]
        clip = [[name, next(arrived)] for name in record.clip]
        state[source.name]["history"].append([place, record.update, record.iteration, mine, clip])
    return state


def restore(sources: Sequence[Source], state: Mapping[str, Any]) -> None:
    """Go on from what :func:`state_of` gave.

    Raises:
        ValueError: if it gave something else; nothing is changed then.
    """
    saved = {source.name: _in_rows(state[source.name]) for source in sources}
    for name, one in saved.items():
        _check(f"state_dict[{name!r}]", one)
    rows = [(row, source) for source in sources for row in saved[source.name]["history"]]
    for source in sources:
        source.restore(saved[source.name]["updates"], saved[source.name]["names"])
    for (_, update, iteration, values, clip), source in sorted(rows, key=lambda pair: int(pair[0][0])):
        mine = _of_kinds(values, saved[source.name]["kinds"], source.kinds)
        source.keep(Record(update, iteration, mine, dict(clip)))


def _in_order(sources: Sequence[Source]) -> list[tuple[Source, Record]]:
    """The records of all sources in the order in which they were made."""
    records = [(order, source, record) for source in sources for order, record in source.history]
    return [(source, record) for _, source, record in sorted(records, key=lambda entry: entry[0])]


def _in_rows(saved: Any) -> Any:
    """The state of a source; that of 0.1.0 has a dict for each row of the history."""
    if not isinstance(saved, Mapping) or not isinstance(saved.get("history"), list):
        return saved
    return {**saved, "history": [_row_of(row) if isinstance(row, Mapping) else row for row in saved["history"]]}


def _row_of(row: Mapping[str, Any]) -> list[Any]:
    clip = row.get("clip")
    pairs = [list(pair) for pair in clip.items()] if isinstance(clip, Mapping) else clip
    return [*(row.get(key) for key in ("order", "update", "iteration", "values")), pairs]


def _of_kinds(values: Sequence[Any], saved: Sequence[str], wanted: Sequence[str]) -> list[Any]:
    """The values of a record as a source that records other kinds would hold them: None where they were not saved."""
    groups = len(values) // len(saved)
    by_kind = {kind: values[i * groups : (i + 1) * groups] for i, kind in enumerate(saved)}
    return [value for kind in wanted for value in by_kind.get(kind, [None] * groups)]


def _check(name: str, saved: Any) -> None:
    """Whether it is what :func:`state_of` gave for a source."""
    well = (
        isinstance(saved, Mapping)
        and _is_count(saved.get("updates"))
        and _are_texts(saved.get("names"))
        and _are_texts(saved.get("kinds"))
        and "lr" in saved["kinds"]
        and isinstance(saved.get("history"), list)
        and all(_is_row(row, len(saved["kinds"])) for row in saved["history"])
    )
    if not well:
        raise ValueError(
            f"{name} must be what LRLogger.state_dict() gave, updates, names, kinds and history, got {shown(saved)}."
        )


def _is_row(row: Any, kinds: int) -> bool:
    if not isinstance(row, (list, tuple)) or len(row) != 5 or not all(map(_is_count, row[:3])):
        return False
    values, clip = row[3:]
    return (
        isinstance(values, list)
        and len(values) % kinds == 0
        and all(value is None or _is_number(value) for value in values)
        and isinstance(clip, list)
        and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in clip)
        and all(isinstance(key, str) and _is_number(value) for key, value in clip)
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
