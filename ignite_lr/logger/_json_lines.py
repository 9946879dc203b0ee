"""An experiment logger that needs nothing but the standard library: a file with one JSON object a line."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers.base_logger import BaseLogger, BaseOptimizerParamsHandler, BaseOutputHandler

from ignite_lr.core.arguments import Whole, check_path, is_number, shown
from ignite_lr.core.host import numbers
from ignite_lr.logger._names import Names, Rule

__all__ = ["RULE", "JSONLinesLogger"]

RULE = Rule(illegal=r"(?!)", taken=("step", "resumed"))
"""JSON takes every name; these two are the line's own."""


class JSONLinesLogger(BaseLogger):
    """Writes what it is told as JSON lines, to be read with any tool: ``pandas.read_json(path, lines=True)``.

    A line is one RFC 8259 object: ``{"step": 10, "lr/SGD": 0.1}``. Numbers that JSON does not know become the strings
    ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``. Each line reaches the operating system before the next one is taken,
    so a killed run loses none; one that a full disk cuts off is
    completed before the next one. The file is made with the first line: processes that write nothing leave no file.

    A file that exists is continued, so that a resumed run goes on in it. The first line then holds
    ``"resumed": true``: lines before it with the same or a larger step were written after the checkpoint that the run
    was resumed from, and come again. A line that was never completed is taken out first.

    Args:
        path: the file. Its folder is made where it is missing.

    Raises:
        TypeError: if ``path`` is no path.
        ValueError: if no file can be called so.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rates.jsonl"
        >>> with JSONLinesLogger(path) as logger:
        ...     logger.write({"lr/SGD": 0.1}, step=1)
        >>> print(path.read_text(), end="")
        {"step": 1, "lr/SGD": 0.1}
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = check_path(path)
        self._file: io.FileIO | None = None
        self._rest = b""
        self._written = False
        self._names = Names(RULE)

    def write(self, values: Mapping[str, Any], step: int) -> None:
        """Write one line.

        Args:
            values: numbers by name, of Python, NumPy or PyTorch; those on a device come over in one copy. The names
                ``step`` and ``resumed``, which are the line's own, get a suffix.
            step: where they belong on the x axis.

        Raises:
            TypeError: if ``values`` is no mapping of names to numbers, or ``step`` no integer.
            OSError: if the file cannot be written.
        """
        line: dict[str, Any] = {"step": Whole().check("step", step)}
        line.update(zip(*_plain(values, self._names), strict=True))
        if self._file is None:
            self._file = self._open()
            if not self._written and self._file.tell():
                line["resumed"] = True
        self._complete()
        self._rest = (json.dumps(line, allow_nan=False) + "\n").encode()
        self._complete()
        self._written = True

    def close(self) -> None:
        """Close the file; a later :meth:`write` opens it again.

        Raises:
            OSError: if the end of the last line cannot be written.
        """
        if self._file is not None:
            try:
                self._complete()
            finally:
                file, self._file, self._rest = self._file, None, b""
                file.close()

    def __repr__(self) -> str:
        return f"JSONLinesLogger({str(self.path)!r})"

    def _complete(self) -> None:
        """Write what there is still to write of a line, which a full disk may have cut off."""
        assert self._file is not None
        while self._rest:
            self._rest = self._rest[self._file.write(self._rest) :]

    def _open(self) -> io.FileIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            _close_last_line(self.path)
        file = io.FileIO(self.path, "a")
        if file.seekable():
            file.seek(0, os.SEEK_END)
        return file

    def _create_output_handler(self, *args: Any, **kwargs: Any) -> _OutputHandler:
        return _OutputHandler(*args, **kwargs)

    def _create_opt_params_handler(self, *args: Any, **kwargs: Any) -> _OptimizerParamsHandler:
        return _OptimizerParamsHandler(*args, **kwargs)


class _OutputHandler(BaseOutputHandler):
    """What ``attach_output_handler`` attaches."""

    def __call__(self, engine: Engine, logger: JSONLinesLogger, event_name: str | Events) -> None:
        values = self._setup_output_metrics_state_attrs(engine, key_tuple=False)
        logger.write(values, self.global_step_transform(engine, event_name))


class _OptimizerParamsHandler(BaseOptimizerParamsHandler):
    """What ``attach_opt_params_handler`` attaches."""

    def __call__(self, engine: Engine, logger: JSONLinesLogger, event_name: str | Events) -> None:
        prefix = f"{self.tag}/" if self.tag else ""
        values = {
            f"{prefix}{self.param_name}/group_{index}": group[self.param_name]
            for index, group in enumerate(self.optimizer.param_groups)
        }
        logger.write(values, engine.state.get_event_attrib_value(event_name))


def _plain(values: Any, names: Mapping[str, str]) -> tuple[list[str], list[Any]]:
    """The names of the values in a line, and the values as JSON has them.

    Raises:
        TypeError: if they are no mapping of names to numbers.
    """
    if not isinstance(values, Mapping):
        raise TypeError(
            f"values must be a dict of numbers by name, got {shown(values)} of type {type(values).__name__}."
        )
    for name, value in values.items():
        if not isinstance(name, str):
            raise TypeError(f"values must have strings as names, got {shown(name)} of type {type(name).__name__}.")
        if type(value) is not float and not _is_number(value):
            raise TypeError(
                f"values[{shown(name)}] must be a real number, got {shown(value)} of type {type(value).__name__}."
            )
    on_device = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    arrived = dict(zip(on_device, numbers(list(on_device.values())), strict=True))
    return [names[name] for name in values], [
        _json_of(arrived[name], value.is_floating_point()) if isinstance(value, torch.Tensor) else _json_of(value)
        for name, value in values.items()
    ]


def _is_number(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1 and not value.is_complex() and not value.is_meta
    return is_number(value) or isinstance(value, bool | np.bool_)


def _json_of(value: Any, fractional: bool = True) -> Any:
    """A number as JSON knows it; what it does not know becomes a string."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    number = value if type(value) is float else value.__index__() if hasattr(value, "__index__") else float(value)
    if isinstance(number, float) and not math.isfinite(number):
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    return number if fractional else int(number)


_BLOCK = 2**16


def _close_last_line(path: Path) -> None:
    """Let the file end with a whole line: what was cut off is completed if nothing but its end is missing.

    Otherwise it is taken out if it began as ours do, and left to itself if it is somebody else's.
    """
    with path.open("rb+") as file:
        end = start = file.seek(0, os.SEEK_END)
        last = b""
        while start and b"\n" not in last:
            stop, start = start, max(start - _BLOCK, 0)
            file.seek(start)
            last = file.read(stop - start) + last
        last = last.rpartition(b"\n")[2]
        if not last:
            return
        try:
            json.loads(last)
        except ValueError:
            if last.startswith(b'{"step": '[: len(last)]):
                file.truncate(end - len(last))
                return
        file.seek(end)
        file.write(b"\n")
