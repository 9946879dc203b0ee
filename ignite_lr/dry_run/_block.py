"""The context manager around a dry run: one at a time, entered, and left with everything as it was."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar

from ignite.engine import Engine

from ignite_lr.core.notice import notice
from ignite_lr.dry_run._engine import DryRun
from ignite_lr.dry_run._failures import raise_failures
from ignite_lr.dry_run._pass import Passes
from ignite_lr.dry_run._setting import Setting
from ignite_lr.dry_run._signals import Signals
from ignite_lr.dry_run._snapshot import Snapshot

__all__ = ["Block"]


class Block:
    """What an ``attach`` returns: ``with block as engine: engine.run(data)``.

    Args:
        what: what it is about, for error messages: "range test", "study".
        setting: the training.
        plan: gives the passes of each run, see ``DryRun``.
        entered: called when the block begins, before anything is touched.
        left: called when it ended without an exception, once everything is restored.
    """

    # one dry run at a time; weak, so that a block that was dropped without being left does not lock the door
    _active: ClassVar[weakref.WeakSet[Block]] = weakref.WeakSet()
    _door: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        what: str,
        setting: Setting,
        plan: Callable[[DryRun], Passes],
        *,
        entered: Callable[[], object] = lambda: None,
        left: Callable[[], object] = lambda: None,
    ) -> None:
        self._what = what
        self._setting = setting
        self._plan = plan
        self._entered = entered
        self._left = left
        self._thread = 0
        self._signals = Signals(Block.__enter__, Block.__exit__, Snapshot.restore)
        self._snapshot: Snapshot | None = None
        self._engine: DryRun | None = None

    def __enter__(self) -> Engine:
        self._signals.install()
        try:
            self._lock_the_door()
        except BaseException:
            self._signals.remove()
            raise
        try:
            self._entered()
            setting = self._setting
            snapshot = self._snapshot = Snapshot(setting.objects, setting.snapshot_to)
            snapshot.add_trainer("trainer", setting.trainer)
            snapshot.add_random_state()
            engine = self._engine = DryRun(self._what, setting, snapshot, self._plan, self._signals)
            engine.open()
            self._signals.deliver()
            return engine
        except BaseException as error:
            try:
                self._leave(error)
            finally:
                self._signals.remove()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._signals.install()
            self._leave(error)
        finally:
            self._signals.remove()
        if error is None:
            self._left()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{name!r} belongs to the engine of the {self._what}, which is there in a with block only: write "
            "'with ....attach(...) as engine:' and then 'engine.run(data)' inside"
        )

    def _lock_the_door(self) -> None:
        with Block._door:
            other = next(iter(Block._active), None)
            if other is None:
                self._thread = threading.get_ident()
                Block._active.add(self)
                return
        if other._thread == threading.get_ident():
            where = "one block inside another cannot tell what to restore"
        else:
            where = "another thread is inside its block, and two at a time cannot tell what to restore"
        raise RuntimeError(f"a {other._what} is running already: {where}. Leave the first block, then attach again.")

    def _leave(self, error: BaseException | None) -> None:
        failures: list[tuple[str, BaseException]] = []
        doubts: list[str | None] = []
        engine, snapshot = self._engine, self._snapshot
        self._engine = self._snapshot = None
        steps: list[Callable[[], object]] = []
        if engine is not None:
            steps.append(engine.close)
        if snapshot is not None:
            if engine is not None:  # before that, nothing has been touched
                steps.append(lambda: failures.extend(snapshot.restore()))
                steps.append(lambda: doubts.append(snapshot.doubts()))
            steps.append(snapshot.close)
        if engine is not None:
            steps.append(engine.let_handlers_go_on)
        steps.append(lambda: Block._active.discard(self))
        for step in steps:
            try:
                step()
            except BaseException as failure:  # noqa: PERF203 - each step must run, whatever the others do
                failures.append((self._what, failure))
        raise_failures(failures, error, self._what)
        for doubt in filter(None, doubts):
            notice(f"after the {self._what}, {doubt}")
