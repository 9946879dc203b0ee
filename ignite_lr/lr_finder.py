"""The learning-rate range test: a sweep over rates that leaves no trace in the training.

The sweep is an engine of its own that runs the trainer's process function. It has the trainer's attributes, but none of
its handlers and a state of its own; everything it disturbs is captured before and restored after.
"""

from __future__ import annotations

import copy
import logging
import math
import numbers
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events, State
from ignite.handlers import Checkpoint
from ignite.metrics import Metric
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from ignite_lr.host import read
from ignite_lr.range_test import Curve, RangeTestResult, SweepCurve, leading_lrs, set_rates, sweep_rates, swept
from ignite_lr.snapshot import Snapshot
from ignite_lr.updates import Phase, Updates, suspended

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

__all__ = ["LRFinder"]

_PATIENCE = 200  # iterations without an update before we say so
_NOT_RUN = "learning rate finder didn't run yet so {} can't be {}"

Validation = Callable[[], Any] | tuple[Engine, Iterable[Any], str]


class _Plan:
    """What a sweep is to do: the checked arguments of ``LRFinder.attach``."""

    def __init__(
        self,
        optimizer: Optimizer,
        output_transform: Callable[[Any], Any],
        num_iter: int | None,
        start_lr: Any,
        end_lr: Any,
        step_mode: str,
        smooth_f: float,
        diverge_th: float,
        ratios: str | None,
        validation: Validation | None,
        repeats: int,
        progress_bar: bool | None,
    ) -> None:
        self.optimizer = optimizer
        self.output_transform = output_transform
        self.smooth_f = _number("smooth_f", smooth_f)
        if not 0 <= self.smooth_f < 1:
            raise ValueError(f"smooth_f is outside the range [0, 1], got {smooth_f}")
        self.diverge_th = _number("diverge_th", diverge_th)
        if not self.diverge_th >= 1:
            raise ValueError(f"diverge_th should be larger than 1, got {diverge_th}")
        if step_mode not in ("exp", "linear"):
            raise ValueError(f"step_mode should be 'exp' or 'linear', but given {step_mode}")
        self.step_mode = step_mode
        self.num_iter = None if num_iter is None else _count("if provided, num_iter", num_iter)
        self.repeats = _count("repeats", repeats)
        if progress_bar not in (None, True, False):
            raise TypeError(f"progress_bar must be None, True or False, got {progress_bar!r}")
        self.progress_bar = progress_bar
        if not callable(output_transform):
            raise TypeError(f"output_transform must be callable, got {output_transform!r}")
        self.validation = _check_validation(validation)
        self.starts, self.ends = _bounds(optimizer, start_lr, end_lr, step_mode, ratios)

    def rates(self, num_iter: int) -> list[tuple[float, ...]]:
        return sweep_rates(self.starts, self.ends, num_iter, self.step_mode)


def _bounds(
    optimizer: Optimizer, start_lr: Any, end_lr: Any, step_mode: str, ratios: str | None
) -> tuple[list[float], list[float]]:
    """First and last rate of each parameter group."""
    present = [_number("lr", group["lr"]) for group in optimizer.param_groups]
    if ratios is None:
        starts = present if start_lr is None else _per_group("start_lr", start_lr, len(present))
        ends = _per_group("end_lr", end_lr, len(present))
    elif ratios == "keep":
        largest = max(present)
        if not largest > 0:
            raise ValueError(f"ratios='keep' needs a parameter group with a positive lr, got {present}")
        for name, value in (("start_lr", start_lr), ("end_lr", end_lr)):
            if isinstance(value, (list, tuple)):
                raise ValueError(f"{name} must be one number with ratios='keep', got {value!r}")
        start = largest if start_lr is None else _number("start_lr", start_lr)
        end = _number("end_lr", end_lr)
        starts = [start * (lr / largest) for lr in present]
        ends = [end * (lr / largest) for lr in present]
    else:
        raise ValueError(f"ratios must be None or 'keep', got {ratios!r}")
    for group, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if ratios == "keep" and present[group] == 0:
            continue  # a frozen group stays frozen
        if not (math.isfinite(start) and math.isfinite(end)):
            raise ValueError(f"start_lr and end_lr must be finite, got start_lr={start} and end_lr={end}")
        if start >= end:
            raise ValueError(f"start_lr must be less than end_lr, start_lr={start} vs end_lr={end}")
        if start < 0 or (start == 0 and step_mode == "exp"):
            raise ValueError(f"start_lr must be positive for step_mode={step_mode!r}, got {start}")
    return starts, ends


def _per_group(name: str, value: Any, groups: int) -> list[float]:
    if isinstance(value, (list, tuple)):
        if len(value) != groups:
            raise ValueError(
                f"Number of values of {name} should be equal to optimizer values."
                f"{name} values:{len(value)} optimizer values: {groups}"
            )
        return [_number(name, one) for one in value]
    return [_number(name, value, "a float or list of floats")] * groups


def _number(name: str, value: Any, kind: str = "a number") -> float:
    """A Python, NumPy or 0-d tensor number as a float."""
    is_bool = isinstance(value, bool)
    if isinstance(value, torch.Tensor) and value.numel() == 1 and value.ndim == 0:
        return read([value])[0]
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, numbers.Real) and not is_bool:
        return float(value)
    raise TypeError(f"{name} should be {kind}, but given {type(value)}")


def _count(name: str, value: Any) -> int:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name} should be an integer, but give {value}")
    if value <= 0:
        raise ValueError(f"{name} should be positive, but give {value}")
    return int(value)


def _loss(value: Any) -> float:
    """The loss that a training step returned, as a float."""
    is_bool = isinstance(value, bool)
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.ndim > 1:
            raise ValueError(
                "if output of the engine is torch.Tensor, then it must be 0d torch.Tensor or 1d torch.Tensor with "
                f"1 element, but got torch.Tensor of shape {value.shape}."
            )
        return read([value])[0]
    if isinstance(value, np.ndarray) and value.size == 1 and value.ndim <= 1:
        return float(value.reshape(())[()])
    if isinstance(value, numbers.Real) and not is_bool:
        return float(value)
    raise TypeError(
        "output of the engine should be of type float or 0d torch.Tensor or 1d torch.Tensor with 1 element, but got "
        f"output of type {type(value).__name__}. Give attach() an output_transform that picks the loss, such as "
        'output_transform=lambda output: output["loss"].'
    )


def _check_validation(validation: Any) -> Validation | None:
    if validation is None or (callable(validation) and not isinstance(validation, Engine)):
        return validation
    if isinstance(validation, tuple) and len(validation) == 3 and isinstance(validation[0], Engine):
        if not isinstance(validation[2], str):
            raise TypeError(f"validation: the name of the metric must be a str, got {validation[2]!r}")
        return validation
    raise TypeError(
        f"validation must be a callable or a tuple (evaluator, loader, metric name), got {type(validation).__name__}"
    )


class _Sweep(Engine):
    """The private engine: runs the trainer's process function while the rate rises.

    ``state`` is at the same time the trainer's state for as long as the block lasts, so that the training step finds
    there what it expects.
    """

    def __init__(self, trainer: Engine, plan: _Plan, snapshot: Snapshot, deliver: Callable[[RangeTestResult], None]):
        self._trainer = trainer
        self._plan = plan
        self._snapshot = snapshot
        self._deliver = deliver
        super().__init__(_Sweep._train_step)  # type: ignore[arg-type]  # an Engine calls it with itself, a _Sweep
        self._original_state = trainer.state
        self._fresh_state()
        self._updates = Updates.of(self, plan.optimizer)
        self._subscription = self._updates.subscribe(
            self, Phase.SCHEDULE, before=self._apply_rate, counted=self._count_update, completed=self._complete
        )
        self.add_event_handler(Events.EPOCH_COMPLETED, self._go_on)
        self.add_event_handler(Events.COMPLETED, self._warn)
        self._validate = _validator(plan.validation, snapshot) if plan.validation is not None else None
        self._loader: Any = None
        self._batches: Iterator[Any] | None = None
        self._bar: Any = None
        self._closed = False
        self._asked_to_stop = self._deciding = False
        self._begin([])

    # -- running

    def run(
        self,
        data: Iterable[Any] | None = None,
        max_epochs: int | None = None,
        max_iters: int | None = None,
        epoch_length: int | None = None,
    ) -> State:
        """Sweep over batches of ``data``, which is recycled or cut to what the sweep needs.

        Args:
            data: batches; may be longer or shorter than the sweep.
            max_epochs: with ``num_iter=None``, points to sweep, in epochs (default 1); otherwise without effect.
            max_iters: with ``num_iter=None``, points to sweep; otherwise without effect.
            epoch_length: as for ``Engine.run``.
        """
        if self._closed:
            raise RuntimeError("the block of this range test has ended: attach the finder again for another sweep")
        if max_epochs is not None and max_iters is not None:
            raise ValueError("Arguments max_iters and max_epochs are mutually exclusive, got both")
        length = self._get_data_length(data) if epoch_length is None and data is not None else epoch_length
        num_iter = self._plan.num_iter
        if num_iter is None:
            if max_iters is not None:
                num_iter = _count("max_iters", max_iters)
            elif length is not None:
                num_iter = length * (1 if max_epochs is None else _count("max_epochs", max_epochs))
            else:
                raise ValueError(
                    "num_iter=None needs data with a length: give attach() a num_iter, or run() an epoch_length"
                )
        if self.state.iteration:
            # a second run in the same block starts where the first one did
            _raise_failures(self._snapshot.restore(last=False), None)
            self._fresh_state()
            self._internal_run_generator = None
            self._dataloader_iter = None
        # a trainer that ended by terminate() still says so
        trainer = self._trainer
        self.should_terminate = trainer.should_terminate = trainer.should_terminate_single_epoch = False
        trainer.should_interrupt = False
        self._begin(self._plan.rates(num_iter))
        self._snapshot.add_data("data", data)
        self._loader = _private_loader(data)
        self._bar = _progress_bar(self._plan.progress_bar, num_iter * self._plan.repeats)
        try:
            epochs = 1 if length is None else max(1, math.ceil(num_iter / max(length, 1)))
            super().run(self._loader, max_epochs=epochs, epoch_length=epoch_length)
            if not self._sweeps or self._stop_reason is None:
                self._end_sweep("terminated")
        except BaseException as error:
            if self._stop_reason is None:
                self._end_sweep(f"exception:{type(error).__name__}")
            raise
        finally:
            if self._bar is not None:
                self._bar.close()
            self._drop_batches()
        return self.state

    def terminate(self, skip_completed: bool = False) -> None:
        """End the sweep after the present iteration; with several ranks, after the next that all of them finish."""
        if idist.get_world_size() > 1 and not self._deciding:
            self._asked_to_stop = True
        else:
            super().terminate(skip_completed)

    def close(self) -> None:
        """Give the trainer its state back and take every hook off. Idempotent."""
        self._closed = True
        self._subscription.remove()
        self._drop_batches()
        self._trainer.state = self._original_state

    def _fresh_state(self) -> None:
        self.state = _private_state(self._trainer, self._original_state, self._plan.optimizer)
        self._trainer.state = self.state

    def _begin(self, rates: list[tuple[float, ...]]) -> None:
        self._rates = rates
        self._sweeps: list[SweepCurve] = []
        self._stop_reason: str | None = None
        self._asked_to_stop = False
        self._deciding = False
        self._begin_curve()

    def _begin_curve(self) -> None:
        self._curve = Curve(self._rates, self._plan.smooth_f, self._plan.diverge_th)
        self._updated = 0  # updates of this sweep
        self._pending = 0  # of these, in the present iteration
        self._waiting = 0  # iterations since the last update
        self._micro_losses: list[float] = []
        if self._rates:
            set_rates(self._plan.optimizer, self._rates[0])

    def _setup_dataloader_iter(self) -> None:
        self._drop_batches()
        self._batches = self._dataloader_iter = _endless(self._loader)

    def _drop_batches(self) -> None:
        batches, self._batches = self._batches, None
        if batches is not None:
            batches.close()  # type: ignore[attr-defined]  # a generator; ends the loader's workers

    def _train_step(self, batch: Any) -> Any:
        trainer = self._trainer
        output = trainer._process_function(trainer, batch)
        if trainer.should_terminate or trainer.should_interrupt:
            self._asked_to_stop = True
        if trainer.should_terminate_single_epoch:
            trainer.should_terminate_single_epoch = False
            self.terminate_epoch()
        return output

    # -- around updates

    def _apply_rate(self) -> None:
        # again, because the training step may have a scheduler of its own
        set_rates(self._plan.optimizer, self._rates[min(self._updated, len(self._rates) - 1)])

    def _count_update(self) -> None:
        self._updated += 1
        self._pending += 1

    def _complete(self) -> None:
        """After an iteration: record the points it made, and decide together whether to go on."""
        self._updates.resolve()
        pending, self._pending = self._pending, 0
        if self._validate is None:
            self._micro_losses.append(_loss(self._plan.output_transform(self.state.output)))
            loss = math.fsum(self._micro_losses) / len(self._micro_losses)
        else:
            loss = self._validate() if pending else 0.0
        loss, pending, stop = _agree(loss, pending, self._asked_to_stop)
        reason: str | None = None
        if pending:
            self._micro_losses = []
            self._waiting = 0
            for _ in range(min(pending, len(self._rates) - len(self._curve.losses))):
                reason = reason or self._curve.add(loss)
            if self._bar is not None:
                self._show(min(pending, self._bar.total - self._bar.n))
            set_rates(self._plan.optimizer, self._rates[min(self._updated, len(self._rates) - 1)])
        elif not math.isfinite(loss):
            reason = "non_finite"
        else:
            self._waiting += 1
            if self._waiting >= _PATIENCE:
                raise RuntimeError(
                    f"{_PATIENCE} iterations without an update of the swept optimizer: the training step never calls "
                    "its step(), a GradScaler skips every one, or the optimizer in to_save is not the one that trains"
                )
        if stop:
            reason = "terminated"
        if reason is not None:
            self._end_sweep(reason)
            if reason != "terminated" and len(self._sweeps) < self._plan.repeats:
                self._stop_reason = None
                _raise_failures(self._snapshot.restore(last=False, surroundings=False), None)
                vars(self.state).update(_user_values(self._trainer, self._original_state, self._plan.optimizer))
                self._begin_curve()
            else:
                self._deciding = True
                self.terminate()

    def _end_sweep(self, reason: str) -> None:
        self._stop_reason = reason
        points = len(self._curve.losses)
        # after an update the next rate is set already, but what stopped the sweep is the one before
        at = points if reason.startswith("exception") or not points or self._micro_losses else points - 1
        sweep = self._curve.freeze(reason, min(at, len(self._rates) - 1))
        if points or not self._sweeps:
            self._sweeps.append(sweep)
        self._deliver(
            RangeTestResult.from_sweeps(
                self._sweeps,
                smooth_f=self._plan.smooth_f,
                iterations=self.state.iteration,
                step_mode=self._plan.step_mode,
                loss_name="Loss" if self._plan.validation is None else "Validation loss",
            )
        )

    def _go_on(self) -> None:
        # updates are what counts, and it may take more epochs than planned to get them
        if self._stop_reason is None and self.state.max_epochs is not None:
            self.state.max_epochs = max(self.state.max_epochs, self.state.epoch + 1)

    def _warn(self) -> None:
        if self._stop_reason not in ("divergence", "non_finite"):
            warnings.warn(
                "Run completed without loss diverging, increase end_lr, decrease diverge_th or look"
                " at lr_finder.plot()",
                UserWarning,
                stacklevel=2,
            )

    def _show(self, points: int) -> None:
        curve = self._curve
        if points > 0 and curve.smoothed:
            rate = max(self._rates[len(curve.smoothed) - 1])
            self._bar.set_postfix_str(f"lr={rate:.2e}, loss={curve.smoothed[-1]:.4g}", refresh=False)
            self._bar.update(points)


def _agree(loss: float, updates: int, stop: bool) -> tuple[float, int, bool]:
    """The mean loss over the ranks, and whether any of them wants to stop. One collective."""
    world = idist.get_world_size()
    if world == 1:
        return loss, updates, stop
    device = idist.device()
    precision = torch.float32 if device.type in ("mps", "xla") else torch.float64
    mine = torch.tensor([loss, updates, updates**2, float(stop)], dtype=precision, device=device)
    total = idist.all_reduce(mine)
    assert isinstance(total, torch.Tensor)
    sums = read(list(total))
    mean = sums[1] / world
    if sums[2] != world * mean**2:
        raise RuntimeError("the ranks disagree about whether this iteration updated the swept optimizer")
    return sums[0] / world, round(mean), sums[3] > 0


def _private_state(engine: Engine, original: State, optimizer: Optimizer | None) -> State:
    """A fresh state with copies of what the user put into the engine's."""
    state = object.__new__(type(original))
    state.__dict__.update(State().__dict__)
    state.__dict__.update(_user_values(engine, original, optimizer))
    return state


def _user_values(engine: Engine, original: State, optimizer: Optimizer | None) -> dict[str, Any]:
    # Known objects are shared, also where a copied one refers to them: a copied model would not be the trained one.
    shared: dict[int, Any] = {id(engine): engine}
    if optimizer is not None:
        shared[id(optimizer)] = optimizer
        shared.update({id(p): p for group in optimizer.param_groups for p in group["params"]})
    managed = {*vars(State()), "rng_states"} - {"metrics", "seed"}
    return {name: _copy_of(value, shared) for name, value in vars(original).items() if name not in managed}


def _copy_of(value: Any, shared: dict[int, Any]) -> Any:
    if isinstance(value, (Engine, nn.Module, Optimizer, DataLoader, torch.Generator)) or hasattr(value, "state_dict"):
        return value
    if isinstance(value, dict) and type(value) is dict:
        return {key: _copy_of(item, shared) for key, item in value.items()}
    try:
        return copy.deepcopy(value, dict(shared))
    except Exception:
        return value  # a file, a lock, a tensor with a graph: it can only be shared


def _private_loader(data: Any) -> Any:
    """The data as the sweep reads it, with a warning where reading it cannot be undone."""
    if isinstance(data, Iterator):
        warnings.warn(
            "the data of this range test is a one-shot iterator: the batches that the sweep takes from it are gone "
            "for the training; pass a data loader, or make a new iterator afterwards",
            UserWarning,
            stacklevel=3,
        )
    elif isinstance(data, DataLoader) and data.persistent_workers and data.num_workers > 0:
        warnings.warn(
            "the data loader has persistent workers, and the random state inside them can neither be captured nor "
            "restored: the sweep reads the same data through a private copy without persistent workers",
            UserWarning,
            stacklevel=3,
        )
        loader = copy.copy(data)
        # the loader refuses to have this changed, but a copy that never ran does not mind
        loader.__dict__.update(persistent_workers=False, _iterator=None)
        return loader
    return data


def _endless(data: Any) -> Iterator[Any]:
    """Batches of the data, over and over, each pass a new epoch for samplers that know of epochs."""
    taken = 0
    epoch = 0
    while True:
        before = taken
        if data is None:
            yield None
            continue
        for batch in data:
            taken += 1
            yield batch
        if taken == before:
            raise RuntimeError(
                f"the data ran dry after {taken} batches, before the sweep had its points: give it data that can be "
                "read again, such as a DataLoader or a list, or a smaller num_iter"
            )
        epoch += 1
        samplers = [getattr(data, "sampler", None), getattr(data, "batch_sampler", None)]
        samplers.append(getattr(samplers[1], "sampler", None))
        for index, sampler in enumerate(samplers):
            if sampler is None or any(sampler is other for other in samplers[:index]):
                continue
            if hasattr(sampler, "set_epoch"):
                present = getattr(sampler, "epoch", epoch - 1)
                sampler.set_epoch((present if isinstance(present, int) else epoch - 1) + 1)


def _validator(validation: Validation, snapshot: Snapshot) -> Callable[[], float]:
    """A function that gives the validation loss as of now."""
    if not isinstance(validation, tuple):
        return lambda: _loss(_keeping_modes(snapshot, validation))
    evaluator, loader, metric = validation
    private = Engine(lambda _, batch: evaluator._process_function(evaluator, batch))
    found = False
    for event, handlers in evaluator._event_handlers.items():
        for handler, args, kwargs in handlers:
            method = handler
            while hasattr(method, "__wrapped__"):
                method = method.__wrapped__
            if isinstance(getattr(method, "__self__", None), Metric):
                found = True
                # an engine stands first among the arguments, as a weak reference
                rest = args[1:] if args and callable(args[0]) and args[0]() is evaluator else args
                private.add_event_handler(event, method, *rest, **kwargs)
    if not found:
        raise ValueError("validation: the evaluator has no metrics attached, so it has no metric to record")
    snapshot.add_data("validation data", loader)
    private_loader = _private_loader(loader)

    def validate() -> float:
        before, flags = evaluator.state, evaluator.last_event_name
        private.state = _private_state(evaluator, before, None)
        evaluator.state = private.state
        try:
            _keeping_modes(snapshot, lambda: private.run(private_loader))
            if metric not in private.state.metrics:
                known = ", ".join(sorted(private.state.metrics)) or "none"
                raise KeyError(f"validation: the evaluator has no metric {metric!r}, but {known}")
            return _loss(private.state.metrics[metric])
        finally:
            evaluator.state, evaluator.last_event_name = before, flags

    return validate


def _keeping_modes(snapshot: Snapshot, function: Callable[[], Any]) -> Any:
    """Call a function that may put modules into evaluation mode: the training step need not set theirs each time."""
    modes = [(module, module.training) for module in snapshot.modules]
    try:
        return function()
    finally:
        for module, training in modes:
            module.training = training


def _progress_bar(wanted: bool | None, total: int) -> Any:
    if idist.get_rank() != 0 or wanted is False or (wanted is None and not sys.stderr.isatty()):
        return None
    from tqdm import tqdm

    return tqdm(total=total, desc="range test", unit="update", leave=True)


def _raise_failures(failures: Sequence[tuple[str, BaseException]], primary: BaseException | None) -> None:
    if not failures:
        return
    what = "; ".join(f"{name}: {type(error).__name__}: {error}" for name, error in dict(failures).items())
    message = f"after the range test these could not be restored, everything else was: {what}"
    if primary is None:
        raise RuntimeError(message) from failures[0][1]
    logging.getLogger(__name__).error(message)
    if hasattr(primary, "add_note"):
        primary.add_note(message)


class _Block:
    """The context manager that :meth:`LRFinder.attach` returns."""

    # one range test at a time; weak, so that a block that was dropped without being left does not lock the door
    _active: ClassVar[weakref.WeakSet[_Block]] = weakref.WeakSet()

    def __init__(
        self,
        finder: LRFinder,
        trainer: Engine,
        objects: Mapping[str, Any],
        plan: _Plan,
        snapshot_to: torch.device | str | os.PathLike[str] | None,
        logger: Any,
    ) -> None:
        self._finder = finder
        self._trainer = trainer
        self._objects = objects
        self._plan = plan
        self._snapshot_to = snapshot_to
        self._logger = logger
        self._snapshot: Snapshot | None = None
        self._sweep: _Sweep | None = None
        self._suspended = ExitStack()

    def __enter__(self) -> Engine:
        if _Block._active:
            raise RuntimeError(
                "a range test is running already: one block inside another cannot tell what to restore. "
                "Leave the first block, then attach again."
            )
        _Block._active.add(self)
        try:
            trainer = self._trainer
            self._finder._result = None
            snapshot = self._snapshot = Snapshot(self._objects, self._snapshot_to)
            scaler = getattr(trainer.state, "scaler", None)
            if isinstance(scaler, torch.amp.GradScaler):
                snapshot.add("trainer.state.scaler", scaler)
            for name, value in vars(trainer.state).items():
                if name not in ("scaler", "dataloader") and hasattr(value, "state_dict"):
                    snapshot.add(f"trainer.state.{name}", value)
            snapshot.add_trainer("trainer", trainer)
            snapshot.add_random_state()
            for item in self._objects.values():
                if isinstance(item, Optimizer):
                    self._suspended.enter_context(suspended(item))
                    swept.add(item)
            self._sweep = _Sweep(trainer, self._plan, snapshot, self._finder._receive)
            return self._sweep
        except BaseException as error:
            self._leave(error)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _interrupts_wait():
            self._leave(error)
        if error is None and self._logger is not None:
            _log(self._logger, self._finder._result)

    def _leave(self, error: BaseException | None) -> None:
        failures: list[tuple[str, BaseException]] = []
        steps: list[Callable[[], Any]] = []
        if self._sweep is not None:
            steps.append(self._sweep.close)
        if self._snapshot is not None:
            if self._sweep is not None:  # before that, nothing has been touched
                steps.append(lambda: failures.extend(self._snapshot.restore()))  # type: ignore[union-attr]  # see above
            steps.append(self._snapshot.close)
        steps += [
            self._suspended.close,
            swept.clear,
            lambda: _Block._active.discard(self),
        ]
        for step in steps:
            try:
                step()
            except Exception as failure:  # noqa: PERF203 - each step must run, whatever the others do
                failures.append(("range test", failure))
        _raise_failures(failures, error)


class _interrupts_wait:  # noqa: N801 - used like a function
    """While the block runs, Ctrl-C waits: half a restored training is worse than a second of patience."""

    def __enter__(self) -> None:
        self._came: tuple[int, FrameType | None] | None = None
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            if self._before is not None:  # None: not installed from Python, so not ours to move
                signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = (number, frame)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            if self._came is not None and callable(self._before):
                self._before(*self._came)


def _log(logger: Any, result: RangeTestResult | None) -> None:
    """Write the curve and the picture to TensorBoard."""
    if result is None or idist.get_rank() != 0:
        return
    writer = getattr(logger, "writer", logger)
    axis = leading_lrs(result.lrs)
    for index, rate in enumerate(axis):
        if rate > 0:
            # TensorBoard knows whole steps only: thousandths of a decade, so that -3000 is 1e-3
            step = round(1000 * math.log10(rate))
            writer.add_scalar("range_test/loss", result.losses[index], step)
            writer.add_scalar("range_test/smoothed_loss", result.smoothed_losses[index], step)
        writer.add_scalar("range_test/lr", rate, index)
    writer.add_figure("range_test/curve", result.plot().figure)


class LRFinder:
    """Learning-rate range test for any Ignite trainer.

    The rate rises with every update of the optimizer, from a rate that is too small to one that is too large, and the
    losses on the way say which is right. Whatever the sweep disturbs is restored when the block ends, in whatever way
    it ends: training afterwards is bitwise the same as without the sweep.

    Drop-in for ``ignite.handlers.FastaiLRFinder``.

    Example:
        >>> import torch
        >>> from ignite.engine import create_supervised_trainer
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> trainer = create_supervised_trainer(model, optimizer, torch.nn.functional.mse_loss)
        >>> x = torch.randn(50, 8, 4)
        >>> data = [(batch, batch.sum(1, keepdim=True)) for batch in x]
        >>> finder = LRFinder()
        >>> with finder.attach(trainer, {"model": model, "optimizer": optimizer},
        ...                    num_iter=100, start_lr=1e-5, end_lr=10.0) as sweep:
        ...     _ = sweep.run(data)
        >>> finder.result.stop_reason
        'divergence'
        >>> optimizer.param_groups[0]["lr"]
        0.1

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, https://arxiv.org/abs/1506.01186
    """

    def __init__(self) -> None:
        self._result: RangeTestResult | None = None

    @property
    def result(self) -> RangeTestResult:
        """What the last sweep found; after an exception, the points up to it.

        Raises:
            RuntimeError: before the first sweep.
        """
        if self._result is None:
            raise RuntimeError(_NOT_RUN.format("its result", "read"))
        return self._result

    def attach(
        self,
        trainer: Engine,
        to_save: Mapping[str, Any],
        output_transform: Callable[[Any], Any] = lambda output: output,
        num_iter: int | None = None,
        start_lr: float | Sequence[float] | None = None,
        end_lr: float | Sequence[float] = 10.0,
        step_mode: str = "exp",
        smooth_f: float = 0.05,
        diverge_th: float = 5.0,
        *,
        optimizer_key: str = "optimizer",
        ratios: str | None = None,
        validation: Validation | None = None,
        repeats: int = 1,
        snapshot_to: torch.device | str | os.PathLike[str] | None = None,
        progress_bar: bool | None = None,
        logger: Any = None,
    ) -> _Block:
        """Prepare a range test; use it as ``with finder.attach(...) as sweep: sweep.run(loader)``.

        ``sweep`` is an engine of its own that runs the trainer's process function. The trainer's handlers do not fire;
        until the block ends the trainer carries the sweep's state, then it gets its own back.

        Args:
            trainer: fresh, finished, interrupted, loaded or crashed: it goes on afterwards as if nothing had been.
            to_save: what the sweep changes and the end of the block restores, by name: the optimizer and every module
                that the training step uses, in training or evaluation mode. Gradient scalers, EMA models and further
                optimizers belong here too if the step changes them; a trainer is left alone.
            output_transform: picks the loss out of what the process function returns: a number, or a tensor or array
                of one element.
            num_iter: the number of points, that is of updates of the optimizer. None: as many as ``run``'s data has
                batches, times its ``max_epochs``.
            start_lr: the rate of the first point, one number or one for each parameter group. None: the present rates.
            end_lr: the rate of the last point, likewise.
            step_mode: ``"exp"`` (a constant factor from point to point) or ``"linear"``.
            smooth_f: weight of the new loss in the smoothed losses, in [0, 1); 0 means no smoothing.
            diverge_th: the sweep stops when the smoothed loss exceeds this multiple of the best one, at least 1. For
                losses that are not all positive it stops when the rise exceeds ``diverge_th - 1`` times the range of
                the losses before.
            optimizer_key: which entry of ``to_save`` is swept; the other optimizers keep their rates.
            ratios: ``"keep"`` sweeps all groups with their present ratios: the one with the largest rate runs from
                ``start_lr`` to ``end_lr``. None gives every group the same rates, or its own from a list.
            validation: records a validation loss instead of the training loss: a function without arguments, called
                after every update, or ``(evaluator, loader, metric name)``, of whose handlers only the metrics run.
            repeats: sweep so many times from the same start over different batches; the result suggests from all of
                them and gives an interval. The iterations add up: ``repeats * num_iter`` updates.
            snapshot_to: where the copy of the training lies: None for the devices where it is, ``"cpu"`` or another
                device, or a directory.
            progress_bar: None shows one on a terminal; True and False force it.
            logger: a ``TensorboardLogger`` to write the curve and its picture to, under ``range_test/``. The x axis
                of the curve is 1000 * log10(lr), rounded, because TensorBoard has whole steps only.

        Returns:
            a context manager that gives the sweep's engine.

        Raises:
            TypeError: if an argument has the wrong type.
            ValueError: if an argument is out of its range.

        Warns:
            UserWarning: "Run completed without loss diverging", if it did; for data whose position or random state
                cannot be restored.
        """
        if not isinstance(trainer, Engine):
            raise TypeError(f"Argument trainer should be an Engine, but given {type(trainer)}")
        if not isinstance(to_save, Mapping):
            raise TypeError(f"Argument to_save should be a mapping, but given {type(to_save)}")
        Checkpoint._check_objects(to_save, "state_dict")
        Checkpoint._check_objects(to_save, "load_state_dict")
        if optimizer_key not in to_save:
            raise ValueError(f"Mapping to_save should contain '{optimizer_key}' key, but has {list(to_save)}")
        optimizer = to_save[optimizer_key]
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"Object to_save['{optimizer_key}'] should be torch optimizer, but given {type(optimizer)}")
        if logger is not None and not hasattr(getattr(logger, "writer", logger), "add_figure"):
            raise TypeError(f"logger should be a TensorboardLogger, but given {type(logger)}")
        plan = _Plan(
            optimizer,
            output_transform,
            num_iter,
            start_lr,
            end_lr,
            step_mode,
            smooth_f,
            diverge_th,
            ratios,
            validation,
            repeats,
            progress_bar,
        )
        return _Block(self, trainer, dict(_flat(to_save)), plan, snapshot_to, logger)

    def get_results(self) -> dict[str, list[Any]]:
        """The sweep as ``{"lr": [...], "loss": [...]}``: applied rates (lists for several groups), smoothed losses."""
        if self._result is None:
            return {}
        lrs = [list(lr) if isinstance(lr, tuple) else lr for lr in self._result.lrs]
        return {"lr": lrs, "loss": list(self._result.smoothed_losses)}

    def lr_suggestion(self) -> float | list[float]:
        """The suggested rate, a list for several parameter groups; see ``RangeTestResult.suggestion``.

        Raises:
            RuntimeError: before the first sweep; ``NoSuggestionError`` if the curve supports no suggestion.
        """
        if self._result is None:
            raise RuntimeError(_NOT_RUN.format("lr_suggestion", "returned"))
        return self._result.suggestion()

    def apply_suggested_lr(self, optimizer: Optimizer) -> None:
        """Write the suggested rates to the optimizer that was swept, or to one with the same parameter groups.

        Raises:
            RuntimeError: if the number of parameter groups does not match, or as in :meth:`lr_suggestion`.
        """
        if self._result is None:
            raise RuntimeError(_NOT_RUN.format("lr_suggestion", "returned"))
        if self._result.groups != len(optimizer.param_groups):
            raise RuntimeError(
                "The number of parameter groups does not match between given optimizer and the one used for "
                f"estimating the learning rate: {len(optimizer.param_groups)} vs {self._result.groups}"
            )
        self._result.apply(optimizer)

    def plot(
        self,
        skip_start: int = 10,
        skip_end: int = 5,
        log_lr: bool = True,
        display_suggestion: bool = True,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Axes:
        """Draw the curve; ``finder.result.plot()`` draws all of it.

        Args:
            skip_start: points to leave out at the beginning.
            skip_end: points to leave out at the end.
            log_lr: whether the x axis is logarithmic.
            display_suggestion: whether to mark the suggestion, if there is one.
            ax: axes to draw on.
            kwargs: for ``matplotlib.figure.Figure``, where ``ax`` is None.

        Raises:
            ModuleNotFoundError: without Matplotlib.
            RuntimeError: before the first sweep.
            ValueError: if ``skip_start`` or ``skip_end`` is negative.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ModuleNotFoundError(
                "This method requires matplotlib to be installed. Please install it with command: \n "
                "pip install matplotlib"
            ) from error
        if self._result is None:
            raise RuntimeError(_NOT_RUN.format("results", "plotted"))
        for name, value in (("skip_start", skip_start), ("skip_end", skip_end)):
            if value < 0:
                raise ValueError(f"{name} cannot be negative, got {value}")
        if ax is None:
            ax = Figure(**kwargs).add_subplot()
        return self._result.plot(
            ax, skip_start=skip_start, skip_end=skip_end, log_lr=log_lr, suggestions=display_suggestion
        )

    def _receive(self, result: RangeTestResult) -> None:
        self._result = result


def _flat(to_save: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The objects of a possibly nested mapping, each under its path."""
    for key, value in to_save.items():
        if isinstance(value, Mapping) and not hasattr(value, "state_dict"):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)) and not hasattr(value, "state_dict"):
            yield from _flat({str(index): item for index, item in enumerate(value)}, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
