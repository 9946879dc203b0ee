"""What every dry run is given: the arguments that range test and study have in common, checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ignite.engine import Engine
from torch.optim import Optimizer

from ignite_lr.core.arguments import check_callable, shown
from ignite_lr.core.step_hooks import make_hookable
from ignite_lr.dry_run._tensors import place
from ignite_lr.dry_run._validation_loss import Validation
from ignite_lr.dry_run._values import GENERATORS

__all__ = ["Setting"]


@dataclass(frozen=True, eq=False)
class Setting:
    """A training, and how a dry run is to treat it. Made by :meth:`checked`.

    Attributes:
        trainer: whose process function runs.
        objects: what is restored, by name: ``to_save`` without its nesting.
        optimizer: whose rates are given and whose updates count.
        output_transform: picks the loss out of what the process function returned.
        validation: a validation loss, see ``validator``.
        snapshot_to: where the copies lie, see ``Snapshot``.
        progress_bar: None shows one on a terminal.
    """

    trainer: Engine
    objects: Mapping[str, Any]
    optimizer: Optimizer
    output_transform: Callable[[Any], Any]
    validation: Validation | None
    snapshot_to: torch.device | str | os.PathLike[str] | None
    progress_bar: bool | None

    @classmethod
    def checked(
        cls,
        trainer: Any,
        to_save: Any,
        optimizer_key: Any,
        output_transform: Any,
        validation: Any,
        snapshot_to: Any,
        progress_bar: Any,
    ) -> Setting:
        """The setting that these arguments of an ``attach`` describe.

        Raises:
            TypeError: if an argument has the wrong type, or the optimizer no learning rate.
            ValueError: if ``to_save`` has no entry ``optimizer_key``.
        """
        if not isinstance(trainer, Engine):
            raise TypeError(f"Argument trainer should be an Engine, but given {type(trainer)}")
        if not isinstance(to_save, Mapping):
            raise TypeError(f"Argument to_save should be a mapping, but given {type(to_save)}")
        objects = dict(_flat(to_save))
        for name, item in objects.items():
            for method in ("state_dict", "load_state_dict"):
                if not isinstance(item, GENERATORS) and not hasattr(item, method):
                    raise TypeError(f"to_save[{name!r}]: Object {type(item)} should have `{method}` method")
        if not isinstance(optimizer_key, str):
            raise TypeError(f"optimizer_key should be a str, but given {type(optimizer_key)}")
        if optimizer_key not in to_save:
            raise ValueError(
                f"Mapping to_save should contain {shown(optimizer_key)} key, or optimizer_key be another, but has "
                f"{shown(list(to_save))}"
            )
        optimizer = to_save[optimizer_key]
        if not isinstance(optimizer, Optimizer):
            where = f"to_save[{shown(optimizer_key)}]"
            raise TypeError(f"Object {where} should be torch optimizer, but given {type(optimizer)}")
        without = next((index for index, group in enumerate(optimizer.param_groups) if "lr" not in group), None)
        if without is not None:
            kind, known = type(optimizer).__name__, list(optimizer.param_groups[without])
            raise TypeError(
                f"Object to_save[{shown(optimizer_key)}] should be an optimizer with a learning rate, but parameter "
                f"group {without} of this {kind} has no 'lr', only {shown(known)}"
            )
        make_hookable(optimizer)  # raises for what counts no updates
        if progress_bar is not None and not isinstance(progress_bar, bool):
            raise TypeError(f"progress_bar must be None, True or False, got {shown(progress_bar)}")
        place(snapshot_to)  # raises for what is none
        return cls(
            trainer,
            objects,
            optimizer,
            check_callable("output_transform", output_transform),
            _check_validation(validation),
            snapshot_to,
            progress_bar,
        )


def _flat(to_save: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The objects of a possibly nested mapping, each under its path."""
    for key, value in to_save.items():
        if isinstance(value, Mapping) and not hasattr(value, "state_dict"):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)) and not hasattr(value, "state_dict"):
            yield from _flat({str(index): item for index, item in enumerate(value)}, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_validation(validation: Any) -> Validation | None:
    if validation is None or (callable(validation) and not isinstance(validation, Engine)):
        return validation
    if isinstance(validation, tuple) and len(validation) == 3 and isinstance(validation[0], Engine):
        if not isinstance(validation[2], str):
            raise TypeError(f"validation: the name of the metric must be a str, got {shown(validation[2])}")
        return validation
    raise TypeError(
        f"validation must be a callable or a tuple (evaluator, loader, metric name), got {type(validation).__name__}"
    )
