"""The records that were kept: as columns for pictures and tables, and as a saved state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ignite_lr.logger._record import Record, Source, on_host

__all__ = ["columns", "restore", "state_of"]


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
        state[source.name] = {
            "updates": source.updates,
            "names": list(source.kept),
            "kinds": list(source.kinds),
            "history": history,
        }
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
        values = _of_kinds(row["values"], state[source.name]["kinds"], source.kinds)
        record = Record(row["update"], row["iteration"], values, row["clip"])
        source.keep(record)


def _of_kinds(values: Sequence[Any], saved: Sequence[str], wanted: Sequence[str]) -> list[Any]:
    """The values of a record as a source that records other kinds would hold them: None where they were not saved."""
    groups = len(values) // len(saved)
    by_kind = {kind: values[i * groups : (i + 1) * groups] for i, kind in enumerate(saved)}
    return [value for kind in wanted for value in by_kind.get(kind, [None] * groups)]


def _check(name: str, saved: Any) -> None:
    """Whether it is what :func:`state_of` gave for a source."""
    counts = ("order", "update", "iteration")
    well = (
        isinstance(saved, Mapping)
        and _is_count(saved.get("updates"))
        and isinstance(saved.get("names"), list)
        and all(isinstance(path, str) for path in saved["names"])
        and isinstance(saved.get("kinds"), list)
        and "lr" in saved["kinds"]
        and isinstance(saved.get("history"), list)
        and all(isinstance(row, Mapping) for row in saved["history"])
        and all(_is_count(row.get(key)) for row in saved["history"] for key in counts)
        and all(isinstance(row.get("values"), list) for row in saved["history"])
        and all(len(row["values"]) % len(saved["kinds"]) == 0 for row in saved["history"])
        and all(isinstance(row.get("clip"), Mapping) for row in saved["history"])
        and all(
            value is None or isinstance(value, int | float)
            for row in saved["history"]
            for value in (*row["values"], *row["clip"].values())
        )
    )
    if not well:
        raise ValueError(
            f"{name} must be what LRLogger.state_dict() gave, updates, names, kinds and history, got {saved!r}."
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
