"""What a study is to do: the arguments of ``LRStudy.attach``, checked, as plain numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ignite_lr.core.arguments import AT_ONCE, Choice, Real, Whole, shown
from ignite_lr.core.host import digest, read
from ignite_lr.dry_run import Setting
from ignite_lr.study._file import as_plain
from ignite_lr.study._runs import Settings
from ignite_lr.study._trials import Trial, checked_trials

__all__ = ["StudyPlan"]


@dataclass(frozen=True, eq=False)
class StudyPlan:
    """What a study is to do. Made by :meth:`checked`.

    Attributes:
        trials: what is tried.
        planned: how many updates each is to make.
        factors: of each trial, the factor of its rate at each update.
        settings: what the numbers mean.
        validate_every: updates between validations; None: only at the end.
        repeats: over how many streams of batches each trial runs.
        diverge_th: as for the range test.
        start: a fingerprint of the parameters and buffers that every trial starts from.
    """

    trials: tuple[Trial, ...]
    planned: tuple[int, ...]
    factors: tuple[tuple[float, ...], ...]
    settings: Settings
    validate_every: int | None
    repeats: int
    diverge_th: float
    start: str

    @classmethod
    def checked(
        cls,
        setting: Setting,
        trials: Any,
        num_updates: Any,
        validate_every: Any,
        mode: Any,
        repeats: Any,
        smooth_f: Any,
        diverge_th: Any,
        *,
        fingerprint: bool,
    ) -> StudyPlan:
        """The plan that these arguments of an ``attach`` describe.

        Args:
            setting: the training.
            trials: as for ``attach``, like those that follow.
            num_updates: likewise.
            validate_every: likewise.
            mode: likewise.
            repeats: likewise.
            smooth_f: likewise.
            diverge_th: likewise.
            fingerprint: whether ``start`` is needed, which reads all parameters once.

        Raises:
            TypeError: if an argument has the wrong type.
            ValueError: if one is out of its range, or does not go with another.
        """
        listed = checked_trials(trials)
        default = Whole(1, or_none=True, maximum=AT_ONCE).check("num_updates", num_updates)
        planned = tuple(_planned(trial, default) for trial in listed)
        every = Whole(1, or_none=True).check("validate_every", validate_every)
        direction = Choice(("min", "max")).check("mode", mode)
        if setting.validation is None:
            if every is not None:
                raise ValueError(f"validate_every must be None without a validation, got {every}.")
            if direction == "max":
                raise ValueError("mode must be 'min' without a validation, since the objective is a loss, got 'max'.")
        weight = Real(minimum=0.0).check("smooth_f", smooth_f)
        threshold = Real(minimum=1.0).check("diverge_th", diverge_th)
        count = Whole(1).check("repeats", repeats)
        assert weight is not None and threshold is not None and count is not None  # noqa: PT018 - for the type checker
        if not weight < 1.0:
            raise ValueError(f"smooth_f must be less than 1, got {shown(smooth_f)}.")
        return cls(
            trials=listed,
            planned=planned,
            factors=tuple(trial.factors(n) for trial, n in zip(listed, planned, strict=True)),
            settings=Settings(direction, setting.validation is not None, weight, _ratios(setting.optimizer)),
            validate_every=every,
            repeats=count,
            diverge_th=threshold,
            start=digest(_start(setting.objects)) if fingerprint else "",
        )

    def rates(self, index: int) -> list[tuple[float, ...]]:
        """The rates of a trial: one row an update, one rate for each parameter group."""
        lr, ratios = self.trials[index].lr, self.settings.ratios
        return [tuple(lr * factor * ratio for ratio in ratios) for factor in self.factors[index]]

    def as_dict(self) -> dict[str, Any]:
        """The plan as its file keeps it."""
        return {
            "validate_every": self.validate_every,
            "repeats": self.repeats,
            "diverge_th": self.diverge_th,
            "start": self.start,
            "trials": [as_plain(trial, n) for trial, n in zip(self.trials, self.planned, strict=True)],
        }

    def check_same(self, name: str, settings: Settings, plan: Mapping[str, Any]) -> None:
        """Whether a file is one of this study: the same settings and start, and its trials the first ones of mine.

        Args:
            name: of the file, for the error.
            settings: those of the file.
            plan: what :meth:`as_dict` gave when it was written.

        Raises:
            ValueError: if it is not; says what differs.
        """
        mine = self.as_dict()

        def refuse(what: str, theirs: Any, given: Any) -> None:
            raise ValueError(
                f"file {name} is of another study: {what} differs, it has {shown(theirs)}, got {shown(given)}. "
                "Give the study a file of its own, or delete this one."
            )

        for key in ("mode", "validated", "smooth_f", "ratios"):
            if getattr(settings, key) != getattr(self.settings, key):
                refuse("validation" if key == "validated" else key, getattr(settings, key), getattr(self.settings, key))
        for key in ("validate_every", "repeats", "diverge_th"):
            if plan.get(key) != mine[key]:
                refuse(key, plan.get(key), mine[key])
        if plan.get("start") != self.start:
            refuse("the digest of the starting parameters", plan.get("start"), self.start)
        theirs = plan.get("trials", [])
        if len(theirs) > len(self.trials):
            refuse("the number of trials", len(theirs), len(self.trials))
        for index, (old, new) in enumerate(zip(theirs, mine["trials"], strict=False)):
            for key, what in (("lr", "lr"), ("planned", "num_updates"), ("name", "name")):
                if old.get(key) != new[key]:
                    refuse(f"the {what} of trial {index}", old.get(key), new[key])
            factors = [one["schedule"] and one["schedule"]["values"] for one in (old, new)]
            if factors[0] != factors[1]:
                refuse(f"the schedule of trial {index}", factors[0], factors[1])


def _planned(trial: Trial, default: int | None) -> int:
    planned = trial.num_updates if trial.num_updates is not None else default
    if planned is None:
        raise ValueError(f"num_updates must be given, to attach() or to the trial: {trial.label} has none.")
    return planned


def _ratios(optimizer: Optimizer) -> tuple[float, ...]:
    """The base rate of each group as a share of the largest one; a warmup that starts at 0 does not matter."""
    base = [_number(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
    largest = max(base)
    if not largest > 0:
        raise ValueError(
            f"the optimizer must have a parameter group with a positive base rate, since groups keep their ratios, "
            f"got {shown(base)}."
        )
    return tuple(rate / largest for rate in base)


def _number(value: Any) -> float:
    return read([value])[0] if isinstance(value, torch.Tensor) else float(value)


def _start(objects: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """The parameters and buffers of modules and the parameters of optimizers, each once."""
    seen: set[int] = set()
    for item in objects.values():
        tensors: list[torch.Tensor] = []
        if isinstance(item, nn.Module):
            tensors = [*item.parameters(), *item.buffers()]
        elif isinstance(item, Optimizer):
            tensors = [p for group in item.param_groups for p in group["params"]]
        for tensor in tensors:
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor
