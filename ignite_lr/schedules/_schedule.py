"""What all schedules have in common: checked arguments, values, pictures, and the way to and from a config file."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from inspect import get_annotations
from numbers import Integral
from numbers import Real as RealNumber
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, overload

import numpy as np

from ignite_lr.core.arguments import AT_ONCE, MOST, Choice, Real, Rule, Whole, shown, wrong_type
from ignite_lr.core.figure import png
from ignite_lr.schedules._picture import schedule_curve, shape_length

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from typing_extensions import Self

__all__ = [
    "Factor",
    "Length",
    "Positive",
    "Schedule",
    "ScheduleFunction",
    "Steps",
    "TotalSteps",
    "from_dict",
    "get",
]

ScheduleFunction = Callable[[int], float]


Steps = Annotated[int, Whole(0)]
TotalSteps = Annotated[int, Whole(1)]
Length = Annotated[float, Real(above=0.0)]
Factor = Annotated[float, Real(minimum=0.0)]
Positive = Annotated[float, Real(above=0.0)]


def _rules(kind: type[Schedule]) -> tuple[tuple[str, Rule], ...]:
    if kind not in _rules_of:
        # not typing.get_type_hints, which refuses the KW_ONLY of dataclasses in Python 3.10
        hints = {
            name: hint for base in kind.__mro__[::-1] for name, hint in get_annotations(base, eval_str=True).items()
        }
        _rules_of[kind] = tuple((field.name, hints[field.name].__metadata__[0]) for field in fields(kind))
    return _rules_of[kind]


_rules_of: dict[type[Schedule], tuple[tuple[str, Rule], ...]] = {}
_by_name: dict[str, type[Schedule]] = {}


@dataclass(frozen=True, repr=False)
class Schedule(ABC):
    """A pure function from the index of an update, from 0, to a factor of the base rate.

    A subclass is a frozen dataclass whose fields are annotated with a :class:`Rule` each.

    Example:
        >>> from ignite_lr.schedules import Linear
        >>> schedule = Linear(total_steps=4)
        >>> schedule(1), schedule.values(5), schedule.to_dict()["name"]
        (0.75, [1.0, 0.75, 0.5, 0.25, 0.0], 'linear')
    """

    name: ClassVar[str]

    def __init_subclass__(cls, called: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if called:
            cls.name = called
            _by_name[called] = cls

    def __post_init__(self) -> None:
        for name, rule in _rules(type(self)):
            checked = rule.check(f"{type(self).__name__}: {name}", getattr(self, name))
            object.__setattr__(self, name, checked)  # the way of a frozen dataclass
        self._prepare()

    def _prepare(self) -> None:  # noqa: B027 - most schedules have nothing to add
        """Check the arguments against each other."""

    def _fail(self, message: str) -> ValueError:
        return ValueError(f"{type(self).__name__}: {message}")

    @overload
    def __call__(self, step: int) -> float: ...

    @overload
    def __call__(self, step: npt.NDArray[Any]) -> npt.NDArray[np.float64]: ...

    def __call__(self, step: Any) -> Any:
        """The factor of update ``step``.

        Args:
            step: index of the update, from 0, or an array of them.

        Returns:
            the factor, or an array of the same shape.

        Raises:
            TypeError: if ``step`` is no number.
            ValueError: if ``step`` is negative, or no number.
        """
        if step.__class__ is not int:
            return self._other(step)
        if step < 0:
            raise self._fail(f"step must be at least 0, got {shown(step)}.")
        return self._factor(step)

    def _other(self, step: Any) -> Any:
        """The factor where the index is no plain int: a number of NumPy's, a fraction, an array, or none at all."""
        if isinstance(step, np.ndarray):
            return np.array([self(index) for index in step.reshape(-1)], dtype=np.float64).reshape(step.shape)
        if isinstance(step, bool | np.bool_) or not isinstance(step, RealNumber):
            step = _index(None if isinstance(step, bool | np.bool_) else step, type(self).__name__)
        elif isinstance(step, Integral):
            step = int(step)
        elif not math.isfinite(step):
            raise self._fail(f"step must be finite, got {shown(step)}.")
        if step < 0:
            raise self._fail(f"step must be at least 0, got {shown(step)}.")
        if step > MOST:
            raise self._too_large(step)
        return self(step) if step.__class__ is int else self._at(float(step))

    def _at(self, step: Any) -> float:
        return self._factor(step)

    def _too_large(self, step: Any) -> ValueError:
        return self._fail(f"step must be at most 2**63 - 1, got {shown(step)}.")

    @abstractmethod
    def _factor(self, step: int) -> float:
        """The factor of update ``step``, which is not negative."""

    def __repr__(self) -> str:
        # only what was given, or could have been
        given = (
            f"{field.name}={value!r}" for field in fields(self) if (value := getattr(self, field.name)) != field.default
        )
        return f"{type(self).__name__}({', '.join(given)})"

    def values(self, n: int) -> list[float]:
        """The factors of the first ``n`` updates.

        Args:
            n: how many, from 0 to 10,000,000.
        """
        return [self(step) for step in range(_count(n))]

    def plot(self, n: int, ax: Axes | None = None, title: str | None = None) -> Axes:
        """Draw the factors of the first ``n`` updates. Needs Matplotlib.

        Args:
            n: how many.
            ax: axes to draw on; new ones where None.
            title: the title; the schedule's repr where None.

        Returns:
            the axes.
        """
        return schedule_curve(self.values(n), ax=ax, title=repr(self) if title is None else title)

    def _repr_png_(self) -> bytes | None:
        """The whole shape, for notebooks."""
        length = shape_length({field.name: getattr(self, field.name) for field in fields(self)})
        updates = range(0, length, max(length // 500, 1))
        factors = [self(step) for step in updates]
        return png(lambda ax: schedule_curve(factors, ax, repr(self), updates=updates), height=3.6)

    def to_dict(self) -> dict[str, Any]:
        """The name and all arguments as plain values, as JSON and YAML can hold them. See :func:`from_dict`.

        Raises:
            TypeError: if a part of it is a plain function, which no config file can hold.
        """
        return {"name": self.name, **{field.name: _plain(getattr(self, field.name)) for field in fields(self)}}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Self:
        """The same as the function :func:`from_dict`, but refuses a dict of another class.

        Raises:
            ValueError: if it is the dict of another schedule.
        """
        schedule = from_dict(d)
        if not isinstance(schedule, cls):
            raise ValueError(f"d must describe a {cls.__name__}, got {shown(d)}.")
        return schedule


def _index(step: Any, name: str) -> int:
    """The index that a tensor of one integer is, say."""
    try:
        return operator.index(step)
    except Exception as error:  # also of an object whose own method raises
        raise TypeError(
            f"{name}: step must be an index or an array of them, got {shown(step)} of type {type(step).__name__}."
        ) from error


def _count(n: int) -> int:
    count = Whole(0, maximum=AT_ONCE).check("n", n)
    assert count is not None
    return count


def _plain(value: Any) -> Any:
    if isinstance(value, Schedule):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if callable(value):
        raise TypeError(f"only the schedules of this package can be written to a dict, got {shown(value)}.")
    return value


def get(name: str, **arguments: Any) -> Schedule:
    """A schedule by its name in snake case, for config files and command lines.

    Args:
        name: ``"cosine"``, ``"inverse_sqrt"`` and so on.
        **arguments: those of the schedule; a part of a :class:`Join` may be a dict, as :func:`from_dict` takes it.

    Raises:
        TypeError: if ``name`` is no string, or the schedule takes no such argument.
        ValueError: if there is no schedule of that name, or an argument is out of range.

    Example:
        >>> get("inverse_sqrt", warmup_steps=10)
        InverseSqrt(warmup_steps=10)
    """
    Choice(tuple(sorted(_by_name))).check("name", name)
    kind = _by_name[name]
    known = [field.name for field in fields(kind)]
    unknown = [argument for argument in arguments if argument not in known]
    if unknown:
        raise TypeError(f"{kind.__name__} takes {', '.join(known)}, got {', '.join(map(shown, unknown[:3]))}.")
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.name not in arguments]
    if missing:
        raise TypeError(f"{kind.__name__} needs {', '.join(missing)}, got {shown(arguments)}.")
    return kind(**{key: _revive(value) for key, value in arguments.items()})


def from_dict(d: Mapping[str, Any]) -> Schedule:
    """The schedule that :meth:`Schedule.to_dict` wrote, or one written by hand.

    Args:
        d: ``{"name": ..., argument: value, ...}``; arguments that have a default may be missing.

    Raises:
        TypeError: if ``d`` is no mapping, or the schedule takes no such argument.
        ValueError: if the name is missing or unknown, or an argument is out of range.

    Example:
        >>> from_dict({"name": "linear", "total_steps": 100})
        Linear(total_steps=100)
    """
    if not isinstance(d, Mapping):
        raise wrong_type("d", "a dict", d)
    if "name" not in d:
        raise ValueError(f"d must have the name of the schedule under 'name', got {shown(d)}.")
    return get(**{str(key): value for key, value in d.items()})


def _revive(value: Any) -> Any:
    try:
        if isinstance(value, Mapping):
            return from_dict(value)
        if isinstance(value, Iterable) and not isinstance(value, str):
            return tuple(_revive(item) for item in value)
    except RecursionError as error:
        raise ValueError("d must be nested less deeply than Python's stack is.") from error
    return value
