"""The private engine: runs passes of the trainer's own process function, each from the same start."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import ignite.distributed as idist
from ignite.engine import Events, State
from torch.optim import Optimizer

from ignite_lr.core.arguments import Whole
from ignite_lr.core.engine import FeedingEngine, data_length, forget_run, process
from ignite_lr.core.rates import separate_rates, set_rates
from ignite_lr.core.subscription import Phase
from ignite_lr.core.updates import Updates, suspended
from ignite_lr.dry_run._batches import endless, private_loader
from ignite_lr.dry_run._course import Course
from ignite_lr.dry_run._failures import raise_failures
from ignite_lr.dry_run._loss import loss_in
from ignite_lr.dry_run._pass import Pass, Passes
from ignite_lr.dry_run._progress import Progress
from ignite_lr.dry_run._ranks import agree
from ignite_lr.dry_run._setting import Setting
from ignite_lr.dry_run._signals import Signals
from ignite_lr.dry_run._snapshot import Snapshot
from ignite_lr.dry_run._state import private_state, stateful_values, user_values
from ignite_lr.dry_run._strays import Strays
from ignite_lr.dry_run._validation_loss import validator

__all__ = ["DryRun"]

_PATIENCE = 200  # iterations without an update before we say so
_STATE = frozenset(vars(State()))


class DryRun(FeedingEngine):
    """Runs a plan of passes; made and undone by a ``Block``.

    ``state`` is at the same time the trainer's state for as long as the block lasts, so that the training step finds
    there what it expects.

    Args:
        what: what this is, for error messages: "range test".
        setting: the training.
        snapshot: of all that is to be put back before each pass.
        plan: called by each run; gives the passes. It may read the attributes below.
        signals: what came while things were put back is delivered right afterwards.

    Attributes:
        snapshot: the same; more may be added to it before the first pass.
        validate: gives the validation loss as of now, if the setting has one.
        data: what ``run`` was given.
        length: how many batches an epoch of it has, if that can be told.
        max_epochs, max_iters: as ``run`` was given them, for a plan that has no length of its own.
        iterations: how many batches were used in this run, over all passes.
    """

    def __init__(
        self, what: str, setting: Setting, snapshot: Snapshot, plan: Callable[[DryRun], Passes], signals: Signals
    ) -> None:
        self._what = what
        self._setting = setting
        self._trainer = setting.trainer
        self._optimizer = setting.optimizer
        self._plan = plan
        self._signals = signals
        self.snapshot = snapshot
        super().__init__(DryRun._train_step)  # type: ignore[arg-type]  # an Engine calls it with itself, a DryRun
        self._original_state = self._trainer.state
        self._updates = Updates.of(self, self._optimizer)
        self._undo = ExitStack()
        for event, handler in (
            # not right after the update: until the iteration ends, whoever looks finds the rate that was applied
            (Events.ITERATION_STARTED, self._apply_rate),
            (Events.EPOCH_STARTED, self._count_from_the_start),
            (Events.EPOCH_COMPLETED, self._go_on),
        ):  # taken off again, so that the engine is freed at once
            self._undo.callback(self.add_event_handler(event, handler).remove)
        self.validate = None if setting.validation is None else validator(setting.validation, snapshot)
        self.data: Any = None
        self.length: int | None = None
        self.max_epochs: int | None = None
        self.max_iters: int | None = None
        self.iterations = 0
        self._loader: Any = None
        self._batches: Iterator[Any] | None = None
        self._used = self._closed = False
        self._world = idist.get_world_size()  # asking costs more than the rest of an iteration's bookkeeping
        self._asked_to_stop = self._deciding = self._rewinding = False
        self._suspended = ExitStack()
        self._passes: Passes | None = None
        self._course: Course | None = None  # the pass under way

    # -- running

    def run(
        self,
        data: Iterable[Any] | None = None,
        max_epochs: int | None = None,
        max_iters: int | None = None,
        epoch_length: int | None = None,
    ) -> State:
        """Run the passes over batches of ``data``, which is recycled or cut to what they need.

        Args:
            data: batches; may be longer or shorter than a pass.
            max_epochs: for a range test with ``num_iter=None``, points to sweep, in epochs (default 1); otherwise
                without effect.
            max_iters: likewise, points to sweep.
            epoch_length: as for ``Engine.run``.

        Raises:
            RuntimeError: if the block has ended; if 200 iterations in a row update nothing.
            ValueError: if the data is empty, or the arguments do not fit.
        """
        if self._closed:
            raise RuntimeError(
                f"the block of this {self._what} has ended: use attach() again, in a with block of its own, for another"
            )
        if max_epochs is not None and max_iters is not None:
            raise ValueError("Arguments max_iters and max_epochs are mutually exclusive, got both")
        self._signals.deliver()  # one that came in the last moment of entering
        if self._used:
            # a second run in the same block starts where the first one did
            self._put_back()
            self._take_fresh_state()
            forget_run(self)
        # a trainer that ended by terminate() still says so
        trainer = self._trainer
        self.should_terminate = trainer.should_terminate = trainer.should_terminate_single_epoch = False
        trainer.should_interrupt = False
        self._asked_to_stop = self._deciding = self._rewinding = False
        self.data, self.max_epochs, self.max_iters, self.iterations = data, max_epochs, max_iters, 0
        self.length = self._length(data, epoch_length)
        self._course = None
        self._passes = self._plan(self)
        if (first := next(self._passes, None)) is None:
            return self.state
        self.snapshot.add_data("data", data)
        self._loader = private_loader(data, self.snapshot.loaders)
        self._progress = Progress(self._what, self._setting.progress_bar)
        self._used = True
        try:
            self._begin(first)
            super().run(self._loader, max_epochs=self._epochs(first), epoch_length=epoch_length)
            self._end("terminated")
        except BaseException as error:
            self._end(f"exception:{type(error).__name__}")
            raise
        finally:
            self._passes.close()
            self._passes = None
            self._progress.close()
            self._drop_batches()
        return self.state

    def terminate(self, skip_completed: bool = False) -> None:
        """End the run after the present iteration; with several ranks, after the next that all of them finish."""
        if self._world > 1 and not self._deciding:
            self._asked_to_stop = True
        else:
            super().terminate(skip_completed)

    def open(self) -> None:
        """Take the trainer's place: from here on everything has to be undone by :meth:`close`."""
        for name, item in stateful_values(self._original_state):  # shared with the private state, not copied
            self.snapshot.add(f"trainer.state.{name}", item)
        for optimizer in self.snapshot.optimizers:
            self._suspend(optimizer)
        subscription = self._updates.subscribe(
            self,
            Phase.SCHEDULE,
            before=self._apply_rate,
            counted=self._count_update,
            completed=self._complete,
            patient=True,  # it has a patience of its own
        )
        self._undo.callback(subscription.remove)
        self._strays = Strays(self._optimizer, self.snapshot, self._suspend)
        self._undo.callback(self._strays.remove)
        self._take_fresh_state()
        # FastaiLRFinder hands out the trainer itself, so that some run it by its own name
        self._trainer.run = self.run  # type: ignore[method-assign]  # until close

    def close(self) -> None:
        """Give the trainer its state back and take every hook off. Idempotent."""
        self._closed = True
        try:
            self._undo.close()
            self._drop_batches()
        finally:
            vars(self._trainer).pop("run", None)
            self._trainer.state = self._original_state

    def let_handlers_go_on(self) -> None:
        """Once all is restored: the package's own handlers on the trainer's optimizers count again. Idempotent."""
        self._suspended.close()

    def _suspend(self, optimizer: Optimizer) -> None:
        self._suspended.enter_context(suspended(optimizer))

    def _length(self, data: Any, epoch_length: Any) -> int | None:
        if epoch_length is not None or data is None:
            return Whole(1, or_none=True).check("epoch_length", epoch_length)
        length = data_length(self, data)
        if length is not None and length < 1:
            raise ValueError("data has zero size: give it at least one batch")
        return length

    # -- the state that the trainer carries meanwhile

    def _take_fresh_state(self) -> None:
        self.state = private_state(self._trainer, self._original_state, self._optimizer)
        self._trainer.state = self.state

    def _renew_state(self) -> None:
        """What the last pass left in the state goes; what belongs to the run of this engine stays."""
        values = vars(self.state)
        fresh = user_values(self._trainer, self._original_state, self._optimizer)
        for name in [name for name in values if name not in fresh and name not in _STATE]:
            del values[name]
        values.update(fresh)

    def _count_from_the_start(self) -> None:
        if self._rewinding:
            self._rewinding = False
            self.state.epoch, self.state.iteration = 1, 0
            self.state.max_epochs = self._epochs(self._plan_now)

    def _go_on(self) -> None:
        # updates are what counts, and it may take more epochs than planned to get them
        if self._course is not None and self.state.max_epochs is not None:
            self.state.max_epochs = max(self.state.max_epochs, self.state.epoch + 1)

    def _epochs(self, plan: Pass) -> int:
        return 1 if self.length is None else max(1, math.ceil((plan.skip + len(plan.rates)) / self.length))

    # -- batches

    def batches(self) -> Iterator[Any]:
        """Batches of the data given, over and over."""
        self._drop_batches()
        self._batches = _after(self._plan_now.skip, endless(self._loader))
        return self._batches

    def _drop_batches(self) -> None:
        batches, self._batches = self._batches, None
        if batches is not None:
            batches.close()  # type: ignore[attr-defined]  # a generator; ends the loader's workers

    # -- a pass from its beginning to its end

    def _begin(self, plan: Pass) -> None:
        if self.iterations:  # it is not the first one
            if plan.rewind:
                self._drop_batches()
            self._put_back(surroundings=plan.rewind)
            self._renew_state()
            if plan.rewind:
                self._rewinding = True
                self.terminate_epoch()
        separate_rates(self._optimizer)
        self._plan_now = plan
        self._course = Course(plan)
        self._progress.begin(plan)
        if plan.prepare is not None:
            plan.prepare()

    def _put_back(self, *, surroundings: bool = True) -> None:
        failures = self.snapshot.restore(last=False, surroundings=surroundings)
        self._signals.deliver()
        raise_failures(failures, None, self._what)

    def _train_step(self, batch: Any) -> Any:
        trainer = self._trainer
        with self._strays.training_step():
            output = process(trainer, batch)
        if trainer.should_terminate or trainer.should_interrupt:
            self._asked_to_stop = True
        if trainer.should_terminate_single_epoch:
            trainer.should_terminate_single_epoch = False
            self.terminate_epoch()
        return output

    def _apply_rate(self) -> None:
        # also right before the update, because the training step may have a scheduler of its own
        if self._course is None:
            return  # on the way out: the plan has nothing more to do
        groups, row = self._optimizer.param_groups, self._course.row
        if len(groups) != len(row):
            raise RuntimeError(
                f"the training step changed the parameter groups of the optimizer: there were {len(row)}, now there "
                f"are {len(groups)}. Add every group before the {self._what}."
            )
        if len(row) > 1 or groups[0]["lr"] is not row[0]:
            set_rates(self._optimizer, row)

    def _count_update(self) -> None:
        if self._course is not None:
            self._course.count_update()

    def _complete(self) -> None:
        """After an iteration: record the updates it made, and decide together whether to go on."""
        course = self._course
        assert course is not None
        self.iterations += 1
        self._updates.resolve()
        updates, course.pending = course.pending, 0
        loss, stop = self._measure(course, updates), self._asked_to_stop
        if self._world > 1:
            loss, updates, stop = agree(self._world, loss, updates, stop)
        reason = course.note(loss, updates)
        self._progress.show(course.record, updates)
        if course.waiting >= _PATIENCE:
            raise RuntimeError(self._strays.instead_of_updates(_PATIENCE))
        if reason is None and stop:
            reason = "terminated"
        if reason is not None:
            upcoming = self._end(reason)
            if upcoming is not None and not stop:
                self._begin(upcoming)
            else:
                self._deciding = True
                self.terminate()

    def _measure(self, course: Course, updates: int) -> float | None:
        """The loss of this iteration, None where there is none: the training step skips a batch so."""
        if course.plan.measure is not None:
            return course.plan.measure() if updates else None
        return loss_in(self.state.output, self._setting.output_transform)

    def _end(self, reason: str) -> Pass | None:
        """End the pass under way, if there is one; what the plan says is next."""
        course, self._course = self._course, None
        if course is None or self._passes is None:
            return None
        try:
            return self._passes.send(course.end(reason))
        except StopIteration:
            return None


def _after(count: int, batches: Iterator[Any]) -> Iterator[Any]:
    """Batches without the first ``count``."""
    for _ in range(count):
        next(batches)
    yield from batches
