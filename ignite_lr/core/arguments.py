"""The one vocabulary of argument checks: what an argument may be, and how it is said when it is not.

Every refusal reads ``<argument> must be <rule>, got <value>.``, is a ``TypeError`` where the kind is wrong and a
``ValueError`` where the value is, and stays readable whatever the value is: long ones are cut, and one whose ``repr``
raises is shown by its type.
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Mapping, Set
from dataclasses import dataclass
from numbers import Integral
from numbers import Real as RealNumber
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from ignite.engine import Engine
from torch.optim import Optimizer

__all__ = [
    "AT_ONCE",
    "MOST",
    "Choice",
    "Flag",
    "Real",
    "Rule",
    "Text",
    "Whole",
    "check_callable",
    "check_items",
    "check_optimizer",
    "check_path",
    "check_state",
    "check_trainer",
    "is_number",
    "is_scalar",
    "shown",
    "wrong_type",
    "wrong_value",
]


class _Brief(reprlib.Repr):
    """Values as an error shows them: one line of readable length."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 120
        self.maxlong = 40
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 6


_brief = _Brief()


def shown(value: object) -> str:
    """A value as an error shows it, in at most 240 characters, also where its ``repr`` raises.

    Example:
        >>> shown("a" * 1000) < "a" * 1000, shown(3)
        (True, '3')
    """
    try:
        text = _brief.repr(value)
    except Exception:  # a repr of the user's own, or an integer of more digits than Python writes
        return f"<{type(value).__name__}>"
    return text if len(text) <= 240 else f"{text[:118]}...{text[-118:]}"


def wrong_type(name: str, rule: str, value: object, hint: str = "") -> TypeError:
    """The error for a value of the wrong kind; ``hint`` says what to write instead."""
    return TypeError(f"{name} must be {rule}, got {shown(value)} of type {type(value).__name__}{hint and ': '}{hint}.")


def wrong_value(name: str, rule: str, value: object) -> ValueError:
    """The error for a value of the right kind that may not be."""
    return ValueError(f"{name} must be {rule}, got {shown(value)}.")


def check_trainer(value: object, name: str = "trainer") -> Engine:
    """The value, if it is an engine.

    Raises:
        TypeError: if it is none.
    """
    if not isinstance(value, Engine):
        raise wrong_type(name, "an ignite.engine.Engine", value)
    return value


def check_optimizer(value: object, name: str = "optimizer") -> Optimizer:
    """The value, if it is an optimizer.

    Raises:
        TypeError: if it is none.
    """
    if not isinstance(value, Optimizer):
        raise wrong_type(name, "a torch.optim.Optimizer", value)
    return value


def check_callable(name: str, value: Any, *, or_none: bool = False) -> Any:
    """The value, if it can be called.

    Raises:
        TypeError: if it cannot.
    """
    if not callable(value) and not (or_none and value is None):
        raise wrong_type(name, "callable or None" if or_none else "callable", value)
    return value


def check_items(name: str, rule: str, value: Any, hint: str = "") -> tuple[Any, ...]:
    """The items of a sequence, also of an array or an iterator; what has no order, and text, is none.

    Raises:
        TypeError: if it is none.
    """
    if not isinstance(value, str | bytes | Mapping | Set):
        try:
            items = iter(value)
        except Exception:  # a tensor without dimensions, an object whose own method raises
            pass
        else:
            return tuple(items)
    raise wrong_type(name, rule, value, hint)


def check_path(value: Any, name: str = "path") -> Path:
    """The path, if a file can have that name.

    Raises:
        TypeError: if it is no path.
        ValueError: if no file can be called so.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise wrong_type(name, "a string or a path", value)
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:  # half of a pair of surrogates
        encoded = b""
    # 4,096 bytes are the most that Linux takes, and more than the others do
    if not encoded or b"\0" in encoded or len(encoded) > 4096:
        raise wrong_value(name, "a name that a file can have", value)
    return Path(text)


def check_state(value: Any, *keys: str) -> Mapping[str, Any]:
    """A saved state, if it has these keys.

    Raises:
        TypeError: if it is no mapping.
        ValueError: if something is missing in it.
    """
    if not isinstance(value, Mapping):
        raise wrong_type("state_dict", "a dict", value)
    missing = [key for key in keys if key not in value]
    if missing:
        raise ValueError(f"state_dict must have {' and '.join(missing)}, got {shown(sorted(map(shown, value)))}.")
    return value


class Rule(Protocol):
    """What an argument of a schedule has to be."""

    def check(self, name: str, value: Any) -> Any:
        """The value in its plain form: Python's own numbers, tuples instead of lists.

        Raises:
            TypeError: if it is of the wrong type; the message names the argument, the rule and the value.
            ValueError: if it is out of range, likewise.
        """


def is_number(value: object) -> bool:
    """Whether it is a real number of Python or NumPy. A truth value is none."""
    return isinstance(value, RealNumber) and not isinstance(value, bool | np.bool_)


def is_scalar(value: object) -> bool:
    """Whether it is a tensor of one real number that can be read."""
    if not isinstance(value, torch.Tensor) or value.ndim or value.is_meta:
        return False
    return value.dtype != torch.bool and not value.is_complex()


MOST = 2**63 - 1
"""The largest count: what an int64 on a device holds."""

AT_ONCE = 10_000_000
"""The largest number of things that are made at once: a list of more would fill the memory."""


@dataclass(frozen=True)
class Whole:
    """An integer, not below ``minimum``, nor above ``maximum``."""

    minimum: int | None = None
    or_none: bool = False
    maximum: int = MOST

    def check(self, name: str, value: Any) -> int | None:
        """The value as an int."""
        if value is None and self.or_none:
            return None
        if not is_number(value) or not isinstance(value, Integral):
            raise wrong_type(name, "an integer or None" if self.or_none else "an integer", value)
        if self.minimum is not None and value < self.minimum:
            raise wrong_value(name, f"at least {self.minimum}", value)
        number = int(value)
        if number > self.maximum < MOST:
            raise wrong_value(name, f"at most {self.maximum:,}", value)
        if number > MOST:
            raise ValueError(f"{name} must be at most 2**63 - 1, got a number of {number.bit_length()} bits.")
        return number


@dataclass(frozen=True)
class Real:
    """A finite number in a range; ``above`` excludes its bound, ``minimum`` and ``maximum`` include theirs."""

    minimum: float = -math.inf
    maximum: float = math.inf
    above: float = -math.inf
    or_none: bool = False

    def check(self, name: str, value: Any) -> float | None:
        """The value as a float."""
        if value is None and self.or_none:
            return None
        if not is_number(value):
            raise wrong_type(name, "a real number or None" if self.or_none else "a real number", value)
        try:
            number = float(value)
        except OverflowError as error:  # an int or a Fraction beyond all floats
            raise wrong_value(name, "finite as a float", value) from error
        if not math.isfinite(number):
            raise wrong_value(name, "finite", value)
        if number < self.minimum:
            raise wrong_value(name, f"at least {self.minimum:g}", value)
        if number > self.maximum:
            raise wrong_value(name, f"at most {self.maximum:g}", value)
        if number <= self.above:
            raise wrong_value(name, f"greater than {self.above:g}", value)
        return number


@dataclass(frozen=True)
class Choice:
    """One of some names."""

    names: tuple[str, ...]

    def check(self, name: str, value: Any) -> str:
        """The value."""
        if not isinstance(value, str):
            raise wrong_type(name, "a string", value)
        if value not in self.names:
            raise wrong_value(name, f"one of {', '.join(map(repr, self.names))}", value)
        return value


@dataclass(frozen=True)
class Flag:
    """A truth value."""

    def check(self, name: str, value: Any) -> bool:
        """The value as a bool."""
        if not isinstance(value, bool | np.bool_):
            raise wrong_type(name, "True or False", value)
        return bool(value)


@dataclass(frozen=True)
class Text:
    """A string."""

    empty: bool = True
    or_none: bool = False

    def check(self, name: str, value: Any) -> str | None:
        """The value."""
        if value is None and self.or_none:
            return None
        rule = ("a string" if self.empty else "a non-empty string") + (" or None" if self.or_none else "")
        if not isinstance(value, str):
            raise wrong_type(name, rule, value)
        if not value and not self.empty:
            raise wrong_value(name, rule, value)
        return value
