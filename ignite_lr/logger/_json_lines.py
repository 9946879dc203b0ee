"""An experiment logger that needs nothing but the standard library: a file with one JSON object a line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from ignite.engine import Engine, Events
from ignite.handlers.base_logger import BaseLogger, BaseOptimizerParamsHandler, BaseOutputHandler

from ignite_lr.core.host import numbers

__all__ = ["JSONLinesLogger"]


class JSONLinesLogger(BaseLogger):
    """Writes what it is told as JSON lines, to be read with any tool: ``pandas.read_json(path, lines=True)``.

    A line is one RFC 8259 object: ``{"step": 10, "lr/SGD": 0.1}``. Numbers that JSON does not know become the strings
    ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``. Each line reaches the operating system before the next one is taken,
    so a killed run loses none. A file that exists is continued, so that a resumed run goes on in it. It is made with
    the first line: processes that write nothing leave no file.

    Args:
        path: the file. Its folder is made where it is missing.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rates.jsonl"
        >>> with JSONLinesLogger(path) as logger:
        ...     logger.write({"lr/SGD": 0.1}, step=1)
        >>> print(path.read_text(), end="")
        {"step": 1, "lr/SGD": 0.1}
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, (str, Path)):
            raise TypeError(f"path must be a str or a pathlib.Path, got {type(path).__name__}.")
        self.path = Path(path)
        self._file: TextIO | None = None

    def write(self, values: Mapping[str, Any], step: int) -> None:
        """Write one line.

        Args:
            values: numbers by name.
            step: where they belong on the x axis.

        Raises:
            OSError: if the file cannot be written.
        """
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # buffered by lines
            self._file = self.path.open("a", buffering=1, encoding="utf-8", newline="\n")
        line = {"step": step, **{name: _to_json(value) for name, value in values.items()}}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")

    def close(self) -> None:
        """Close the file; a later :meth:`write` opens it again."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

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
        rates = numbers([group[self.param_name] for group in self.optimizer.param_groups])
        values = {f"{prefix}{self.param_name}/group_{index}": number for index, number in enumerate(rates)}
        logger.write(values, engine.state.get_event_attrib_value(event_name))


def _to_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
