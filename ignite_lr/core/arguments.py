"""The one vocabulary of argument checks: what an argument may be, and how it is said when it is not.

Every refusal reads ``<argument> must be <rule>, got <value>.``, is a ``TypeError`` where the kind is wrong and a
``ValueError`` where the value is, and stays readable whatever the value is: long ones are cut, and one whose ``repr``
raises is shown by its type.
"""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass
from numbers import Integral
from numbers import Real as RealNumber
from typing import Any, Protocol

import numpy as np
from ignite.engine import Engine
from torch.optim import Optimizer

__all__ = [
    "MOST",
    "Choice",
    "Flag",
    "Real",
    "Rule",
    "Text",
    "Whole",
    "check_callable",
    "check_optimizer",
    "check_trainer",
    "is_number",
    "shown",
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
    """A value as an error shows it, in at most a few hundred characters, also where its ``repr`` raises.

    Example:
        >>> shown("a" * 1000) < "a" * 1000, shown(3)
        (True, '3')
    """
    try:
        return _brief.repr(value)
    except Exception:  # a repr of the user's own
        return f"<{type(value).__name__}>"


def _wrong_type(name: str, rule: str, value: object) -> TypeError:
    return TypeError(f"{name} must be {rule}, got {shown(value)} of type {type(value).__name__}.")


def _wrong_value(name: str, rule: str, value: object) -> ValueError:
    return ValueError(f"{name} must be {rule}, got {shown(value)}.")


def check_trainer(value: object, name: str = "trainer") -> Engine:
    """The value, if it is an engine.

    Raises:
        TypeError: if it is none.
    """
    if not isinstance(value, Engine):
        raise _wrong_type(name, "an ignite.engine.Engine", value)
    return value


def check_optimizer(value: object, name: str = "optimizer") -> Optimizer:
    """The value, if it is an optimizer.

    Raises:
        TypeError: if it is none.
    """
    if not isinstance(value, Optimizer):
        raise _wrong_type(name, "a torch.optim.Optimizer", value)
    return value


def check_callable(name: str, value: Any, *, or_none: bool = False) -> Any:
    """The value, if it can be called.

    Raises:
        TypeError: if it cannot.
    """
    if not callable(value) and not (or_none and value is None):
        raise _wrong_type(name, "callable or None" if or_none else "callable", value)
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


MOST = 2**63 - 1
"""The largest count: what an int64 on a device holds."""


@dataclass(frozen=True)
class Whole:
    """An integer, not below ``minimum``."""

    minimum: int | None = None
    or_none: bool = False

    def check(self, name: str, value: Any) -> int | None:
        """The value as an int."""
        if value is None and self.or_none:
            return None
        if not is_number(value) or not isinstance(value, Integral):
            raise _wrong_type(name, "an integer or None" if self.or_none else "an integer", value)
        if self.minimum is not None and value < self.minimum:
            raise _wrong_value(name, f"at least {self.minimum}", value)
        number = int(value)
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
            raise _wrong_type(name, "a real number or None" if self.or_none else "a real number", value)
        try:
            number = float(value)
        except OverflowError as error:  # an int or a Fraction beyond all floats
            raise _wrong_value(name, "finite as a float", value) from error
        if not math.isfinite(number):
            raise _wrong_value(name, "finite", value)
        if number < self.minimum:
            raise _wrong_value(name, f"at least {self.minimum:g}", value)
        if number > self.maximum:
            raise _wrong_value(name, f"at most {self.maximum:g}", value)
        if number <= self.above:
            raise _wrong_value(name, f"greater than {self.above:g}", value)
        return number


@dataclass(frozen=True)
class Choice:
    """One of some names."""

    names: tuple[str, ...]

    def check(self, name: str, value: Any) -> str:
        """The value."""
        if not isinstance(value, str):
            raise _wrong_type(name, "a string", value)
        if value not in self.names:
            raise _wrong_value(name, f"one of {', '.join(map(repr, self.names))}", value)
        return value


@dataclass(frozen=True)
class Flag:
    """A truth value."""

    def check(self, name: str, value: Any) -> bool:
        """The value as a bool."""
        if not isinstance(value, bool | np.bool_):
            raise _wrong_type(name, "True or False", value)
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
            raise _wrong_type(name, rule, value)
        if not value and not self.empty:
            raise _wrong_value(name, rule, value)
        return value
