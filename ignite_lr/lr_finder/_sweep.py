"""The sweep: an engine of its own that runs the trainer's process function while the rate rises."""

from __future__ import annotations

import math
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events, State
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ignite_lr.core.host import read
from ignite_lr.core.rates import set_rates
from ignite_lr.core.updates import Phase, Updates
from ignite_lr.dry_run import (
    Snapshot,
    endless,
    loss_of,
    private_loader,
    private_state,
    raise_failures,
    stateful_values,
    user_values,
    validator,
)
from ignite_lr.lr_finder._plan import SweepPlan, count
from ignite_lr.range_test import Curve, RangeTestResult, SweepCurve

__all__ = ["Sweep"]

_PATIENCE = 200  # iterations without an update before we say so
_WATCHED = 20  # iterations in which optimizers that nobody mentioned are looked for; later ones would cost for nothing


class Sweep(Engine):
    """The private engine: runs the trainer's process function while the rate rises.

    ``state`` is at the same time the trainer's state for as long as the block lasts, so that the training step finds
    there what it expects.
    """

    def __init__(
        self, trainer: Engine, plan: SweepPlan, snapshot: Snapshot, deliver: Callable[[RangeTestResult], None]
    ):
        self._trainer = trainer
        self._plan = plan
        self._snapshot = snapshot
        self._deliver = deliver
        super().__init__(Sweep._train_step)  # type: ignore[arg-type]  # an Engine calls it with itself, a Sweep
        self._original_state = trainer.state
        self._updates = Updates.of(self, plan.optimizer)
        self._handles: list[Any] = []
        # not right after the update: until the iteration ends, whoever looks finds the rate that was applied
        self.add_event_handler(Events.ITERATION_STARTED, self._apply_rate)
        self.add_event_handler(Events.EPOCH_COMPLETED, self._go_on)
        self.add_event_handler(Events.COMPLETED, self._warn)
        self._validate = validator(plan.validation, snapshot) if plan.validation is not None else None
        self._loader: Any = None
        self._batches: Iterator[Any] | None = None
        self._bar: Any = None
        self._closed = False
        self._stepping: int | None = None  # the thread inside the training step
        self._world = idist.get_world_size()  # asking costs more than the rest of an iteration's bookkeeping
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
                num_iter = count("max_iters", max_iters)
            elif length is not None:
                num_iter = length * (1 if max_epochs is None else count("max_epochs", max_epochs))
            else:
                raise ValueError(
                    "num_iter=None needs data with a length: give attach() a num_iter, or run() an epoch_length"
                )
        if self.state.iteration:
            # a second run in the same block starts where the first one did
            raise_failures(self._snapshot.restore(last=False), None)
            self._fresh_state()
            self._internal_run_generator = None
            self._dataloader_iter = None
        # a trainer that ended by terminate() still says so
        trainer = self._trainer
        self.should_terminate = trainer.should_terminate = trainer.should_terminate_single_epoch = False
        trainer.should_interrupt = False
        self._begin(self._plan.rates(num_iter))
        self._snapshot.add_data("data", data)
        self._loader = private_loader(data)
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
        if self._world > 1 and not self._deciding:
            self._asked_to_stop = True
        else:
            super().terminate(skip_completed)

    def open(self) -> None:
        """Take the trainer's place: from here on everything has to be undone by :meth:`close`."""
        for name, item in stateful_values(self._original_state):  # shared with the sweep's state, not copied
            self._snapshot.add(f"trainer.state.{name}", item)
        self._handles.append(
            self._updates.subscribe(
                self, Phase.SCHEDULE, before=self._apply_rate, counted=self._count_update, completed=self._complete
            )
        )
        watch = torch.compiler.disable(self._watch_optimizer)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._watch = register_optimizer_step_pre_hook(watch)
        self._handles.append(self._watch)
        self._fresh_state()
        # FastaiLRFinder hands out the trainer itself, so that some run it by its own name
        self._trainer.run = self.run  # type: ignore[method-assign]  # until close

    def close(self) -> None:
        """Give the trainer its state back and take every hook off. Idempotent."""
        self._closed = True
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._drop_batches()
        vars(self._trainer).pop("run", None)
        self._trainer.state = self._original_state

    def _watch_optimizer(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Capture an optimizer that nobody mentioned right before its first step: whatever trains is restored."""
        if optimizer is self._plan.optimizer or self._stepping != threading.get_ident():
            return  # the usual case, or another training that goes on in a thread beside this one
        if not any(optimizer is known for known in self._snapshot.optimizers):
            self._snapshot.add(f"{type(optimizer).__name__} of the training step, not in to_save", optimizer)

    def _fresh_state(self) -> None:
        self.state = private_state(self._trainer, self._original_state, self._plan.optimizer)
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
        self._row = self._rates[0] if self._rates else ()  # the rates of the next one
        self._pending = 0  # of these, in the present iteration
        self._waiting = 0  # iterations since the last update
        self._micro_losses: list[float] = []

    def _setup_dataloader_iter(self) -> None:
        self._drop_batches()
        self._batches = self._dataloader_iter = endless(self._loader)

    def _drop_batches(self) -> None:
        batches, self._batches = self._batches, None
        if batches is not None:
            batches.close()  # type: ignore[attr-defined]  # a generator; ends the loader's workers

    def _train_step(self, batch: Any) -> Any:
        trainer = self._trainer
        self._stepping = threading.get_ident()
        try:
            output = trainer._process_function(trainer, batch)
        finally:
            self._stepping = None
        if trainer.should_terminate or trainer.should_interrupt:
            self._asked_to_stop = True
        if trainer.should_terminate_single_epoch:
            trainer.should_terminate_single_epoch = False
            self.terminate_epoch()
        return output

    # -- around updates

    def _apply_rate(self) -> None:
        # also right before the update, because the training step may have a scheduler of its own
        optimizer, row = self._plan.optimizer, self._row
        if len(row) > 1 or optimizer.param_groups[0]["lr"] is not row[0]:
            set_rates(optimizer, row)

    def _count_update(self) -> None:
        self._updated += 1
        self._pending += 1
        self._row = self._rates[min(self._updated, len(self._rates) - 1)]

    def _complete(self) -> None:
        """After an iteration: record the points it made, and decide together whether to go on."""
        if self.state.iteration == _WATCHED:
            self._watch.remove()
        self._updates.resolve()
        pending, self._pending = self._pending, 0
        if self._validate is None:
            loss = loss_of(self._plan.output_transform(self.state.output))
            if self._micro_losses or not pending:
                self._micro_losses.append(loss)
                loss = math.fsum(self._micro_losses) / len(self._micro_losses)
        else:
            loss = self._validate() if pending else 0.0
        stop = self._asked_to_stop
        if self._world > 1:
            loss, pending, stop = _agree(self._world, loss, pending, stop)
        reason: str | None = None
        if pending:
            self._micro_losses = []
            self._waiting = 0
            for _ in range(min(pending, len(self._rates) - len(self._curve.losses))):
                reason = reason or self._curve.add(loss)
            if self._bar is not None:
                self._show(min(pending, self._bar.total - self._bar.n))
        elif not math.isfinite(loss):
            reason = "non_finite"
        else:
            self._waiting += 1
            if self._waiting >= _PATIENCE:
                raise RuntimeError(
                    f"{_PATIENCE} iterations without an update of the swept optimizer: the training step never calls "
                    "its step(), a GradScaler skips every one, or the optimizer in to_save is not the one that trains"
                )
        if stop and reason is None:
            reason = "terminated"
        if reason is not None:
            self._end_sweep(reason)
            if not stop and len(self._sweeps) < self._plan.repeats:
                self._stop_reason = None
                raise_failures(self._snapshot.restore(last=False, surroundings=False), None)
                vars(self.state).update(user_values(self._trainer, self._original_state, self._plan.optimizer))
                self._begin_curve()
            else:
                self._deciding = True
                self.terminate()

    def _end_sweep(self, reason: str) -> None:
        self._stop_reason = reason
        points = len(self._curve.losses)
        # what stopped the sweep is the rate of the last point, unless it was on the way to the next one
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


def _agree(world: int, loss: float, updates: int, stop: bool) -> tuple[float, int, bool]:
    """The mean loss over the ranks, and whether any of them wants to stop. One collective."""
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


def _progress_bar(wanted: bool | None, total: int) -> Any:
    if idist.get_rank() != 0 or wanted is False or (wanted is None and not sys.stderr.isatty()):
        return None
    from tqdm import tqdm

    return tqdm(total=total, desc="range test", unit="update", leave=True)
