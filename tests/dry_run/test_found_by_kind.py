"""What a range test restores is found by what it is, wherever it hangs."""

from __future__ import annotations

import gc
import os
import random
import re
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset
from trainings import Training, check_same, frozen, net, pairs, same_as_without, sweep, training_of

from ignite_lr import (
    GradNormClipper,
    LRLogger,
    LRSchedulerHandler,
    ScheduleLR,
    schedules,
)

# -- a snapshot in a folder that cannot be read back


class Marked(torch.Tensor):
    """A tensor with a class of its own, as several vision and quantisation libraries have them."""


def kept_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_tensor_of_a_class_of_its_own_and_a_snapshot_in_a_folder(tmp_path: Path) -> None:
    """A model keeps an image mean as a tensor subclass and the user gives snapshot_to=folder to save memory.
    At its end all is as before, and of its class."""
    model = net()
    model.register_buffer("mean", torch.zeros(4).as_subclass(Marked))
    training = training_of(model)
    before = training.picture()
    sweep(training, snapshot_to=tmp_path)
    check_same(before, training.picture())
    assert type(model.mean) is Marked
    assert kept_files(tmp_path) == []


def test_a_snapshot_file_that_cannot_be_read_is_not_deleted(tmp_path: Path) -> None:
    """The disk fails while the sweep runs, so that the snapshot's file comes back short. The error names the file, and
    the file, the only copy there is, stays where it is."""
    done: list[Path] = []

    def fail_once(engine: Engine) -> None:
        if not done:
            done.extend(kept_files(tmp_path))
            for path in done:
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    training = training_of(net(), first=fail_once)
    with pytest.raises(RuntimeError, match=re.escape(str(tmp_path))):
        sweep(training, snapshot_to=tmp_path)
    assert len(done) > 0
    assert kept_files(tmp_path) == done


# -- what an optimizer keeps for itself


class SlowWeights(torch.optim.Optimizer):
    """Gradient descent whose weights are pulled towards slow ones, which lie in a list of lists."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, {"lr": lr})
        self.updates = 0
        self.slow = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        self.updates += 1
        for group, slow in zip(self.param_groups, self.slow, strict=True):
            for fast, anchor in zip(group["params"], slow, strict=True):
                fast.add_(fast.grad, alpha=-group["lr"])
                if self.updates % 3 == 0:
                    anchor.lerp_(fast, 0.5)
                    fast.copy_(anchor)


class NoisyDescent(torch.optim.Optimizer):
    """Langevin noise from a random generator of its own."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, {"lr": lr})
        self.noise = torch.Generator().manual_seed(5)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * (p.grad + 0.05 * torch.randn(p.shape, generator=self.noise)))


@pytest.mark.parametrize("kind", [SlowWeights, NoisyDescent])
def test_what_an_optimizer_keeps_beside_its_state(kind: Any) -> None:
    """An optimizer from a paper's repository keeps slow weights in a list, or a random generator, as attributes.
    They are optimizer state: training after the sweep is bitwise the training without it."""

    def build() -> Training:
        model = net()
        optimizer = kind(model.parameters())
        return training_of(model, optimizer, more=lambda: [getattr(optimizer, "slow", None)])

    same_as_without(build, before=8)


# -- state of the data


class Jitter:
    """A random augmentation with its own generator."""

    def __init__(self) -> None:
        self.random = random.Random(1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.random.gauss(0, 0.1)


class Augmented(Dataset):
    def __init__(self) -> None:
        self.pairs = pairs()
        self.transform = Jitter()

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        x, y = self.pairs[index]
        return self.transform(x), y


class OnDevice:
    """The usual wrapper that moves batches to a device."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        yield from self.loader


class TensorBatches:
    """The usual fast loader for data in memory: it permutes its tensors and is its own iterator."""

    def __init__(self) -> None:
        self.tensors = list(pairs().tensors)
        self.at = 0

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Any:
        order = torch.randperm(64)
        self.tensors = [tensor[order] for tensor in self.tensors]
        self.at = 0
        return self

    def __next__(self) -> Any:
        if self.at >= 64:
            raise StopIteration
        self.at += 8
        return [tensor[self.at - 8 : self.at] for tensor in self.tensors]


def test_a_generator_in_the_transform_of_a_subset() -> None:
    """The usual split of one data set with a random transform: DataLoader(Subset(dataset)), dataset.transform has its
    own random generator. Its state comes back: the training sees the same augmented batches as without a sweep."""
    assert same_as_without(lambda: training_of(net(), data=DataLoader(Subset(Augmented(), range(48)), 8))) == []


def test_a_loader_inside_a_wrapper() -> None:
    """The loader with generator= is wrapped in an object that moves batches to the device.
    The wrapper changes nothing: the order of the data is that of the training without a sweep."""

    def build() -> Training:
        loader = DataLoader(pairs(), 8, shuffle=True, generator=torch.Generator().manual_seed(9))
        return training_of(net(), data=OnDevice(loader))

    assert same_as_without(build) == []


def test_a_loader_that_is_its_own_iterator() -> None:
    """A fast in-memory loader returns itself from __iter__ and shuffles its tensors there. It can be read again, so it
    is no one-shot iterator: its data come in the same order as without a sweep, and nobody is warned."""
    assert same_as_without(lambda: training_of(net(), data=TensorBatches())) == []


class Resumable:
    """A loader that goes on where a checkpoint left it. Nothing but state_dict() knows where that is."""

    def __init__(self) -> None:
        x, y = pairs().tensors
        at, order = 0, torch.Generator().manual_seed(2)

        def epoch() -> Iterator[Any]:
            nonlocal at
            while at < 8:
                at += 1
                rows = torch.randperm(64, generator=order)[:8]
                yield x[rows], y[rows]
            at = 0

        def read() -> dict[str, Any]:
            return {"at": at, "order": order.get_state()}

        def write(state: dict[str, Any]) -> None:
            nonlocal at
            at = state["at"]
            order.set_state(state["order"])

        self._functions = (epoch, read, write)

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[Any]:
        return self._functions[0]()

    def state_dict(self) -> dict[str, Any]:
        return self._functions[1]()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._functions[2](state)


def test_a_loader_with_a_state_of_its_own() -> None:
    """A run is resumed in the middle of an epoch: the loader got its position by load_state_dict, then comes a sweep.
    Data that have state_dict and load_state_dict are restored through them, also when they are not in to_save."""

    def build() -> Training:
        loader = Resumable()
        loader.load_state_dict({**Resumable().state_dict(), "at": 3})
        return training_of(net(), data=loader, more=loader.state_dict)

    assert same_as_without(build) == []


# -- scripted modules


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_scripted_model() -> None:
    """A torch.jit.script model with batch normalisation, in eval mode when the sweep begins.
    Parameters, buffers and modes come back as those of any module."""

    def build() -> Training:
        model = torch.jit.script(nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Linear(16, 1)))
        model.eval()
        return training_of(model, first=lambda engine: model.train())

    same_as_without(build)


# -- modules and hooks that the first batches make


class Domains(nn.Module):
    """One normalisation for each domain, made when its first batch comes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 16)
        self.norms = nn.ModuleDict()
        self.last = nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        domain = "warm" if x[0, 0] > 0 else "cold"
        if domain not in self.norms:
            self.norms[domain] = nn.BatchNorm1d(16)
        return self.last(torch.tanh(self.norms[domain](self.first(x))))


class Tapped(nn.Module):
    """Hangs a forward hook into its network at the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()
        self.hooked = False
        self.features: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.hooked:
            self.net[0].register_forward_hook(lambda module, args, output: self.features.append(output))
            self.hooked = True
        self.features.clear()
        return self.net(x) + 0.1 * sum(feature.mean() for feature in self.features)


def test_a_module_that_the_sweep_made_is_gone() -> None:
    """A model makes a batch normalisation for each domain when that domain first comes.
    Those that were made in the sweep are gone after it: the training makes its own, with fresh statistics."""
    same_as_without(lambda: training_of(Domains()))


def test_a_hook_that_the_sweep_registered_is_gone() -> None:
    """A model registers a forward hook at its first batch, behind a flag. The flag comes back, so the hook has to go:
    else the training registers it a second time and counts its features twice."""
    same_as_without(lambda: training_of(Tapped()))


# -- plain attributes of modules


class Counted(nn.Module):
    """Its output depends on a counter, which is a NumPy number."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()
        self.calls = np.int64(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + np.int64(1)
        return self.net(x) * (1 + 0.1 * float(self.calls % 7))


class Queue:
    """A memory of features, no module, with state_dict like one."""

    def __init__(self) -> None:
        self._rows: tuple[torch.Tensor, ...] = ()

    def push(self, row: torch.Tensor) -> None:
        self._rows = (*self._rows[-3:], row)

    def mean(self) -> Any:
        return sum(self._rows) / max(len(self._rows), 1)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": list(self._rows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows = tuple(state["rows"])


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()
        self.queue = Queue()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.queue.push(x.detach().mean())
        return self.net(x) + self.queue.mean()


def test_an_attribute_of_pytorchs_own_module() -> None:
    """The training step raises the probability of a Dropout from batch to batch (scheduled dropout).
    Plain attributes of PyTorch's own modules come back like those of the user's."""

    def build() -> Training:
        model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.0), nn.Linear(16, 1))

        def more_dropout(engine: Engine) -> None:
            model[1].p = min(0.5, model[1].p + 0.01)

        return training_of(model, first=more_dropout, more=lambda: model[1].p)

    same_as_without(build)


def test_a_numpy_number_on_a_module() -> None:
    """A module of the user counts its calls in a np.int64. It comes back as an int would."""

    def build() -> Training:
        model = Counted()
        return training_of(model, more=lambda: model.calls)

    same_as_without(build)


def test_an_object_with_state_dict_on_a_module() -> None:
    """A feature queue hangs on the model: no module, but with state_dict and load_state_dict.
    It is part of the model and comes back with it, through them."""

    def build() -> Training:
        model = Remembering()
        return training_of(model, more=lambda: model.queue)

    same_as_without(build, before=8)


# -- optimizers nobody mentioned, stepped in another thread


def in_a_thread(action: Callable[[], None]) -> None:
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


def test_optimizers_that_another_thread_steps() -> None:
    """One optimizer for each parameter, stepped by hooks in the backward pass, which autograd runs in threads of its
    own for CUDA tensors; only one of them is in to_save. All of them are restored: their parameters are the model's."""

    def build() -> Training:
        model = net()
        optimizers = [torch.optim.SGD([p], lr=0.05, momentum=0.9) for p in model.parameters()]

        def update() -> None:
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()

        def step(engine: Engine, batch: Any) -> float:
            loss = nn.functional.mse_loss(model(batch[0]), batch[1])
            loss.backward()
            in_a_thread(update)
            return loss.item()

        loader = DataLoader(pairs(), 8, shuffle=True)
        to_save = {"model": model, "optimizer": optimizers[0]}
        return Training(Engine(step), to_save, loader, more=lambda: optimizers)

    same_as_without(build, before=8)


# -- large Python containers


class Listed(Sampler):
    """Goes through a list of indices."""

    def __init__(self, indices: list[int]) -> None:
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


class Endless(Dataset):
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        x = torch.full((4,), float(index % 7))
        return x, x[:1]


def peak_of(action: Callable[[], Any]) -> float:
    """The most memory of Python objects that an action held at once, in MB, beside what was there."""
    gc.collect()
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def test_a_sampler_over_a_million_indices() -> None:
    """A sampler holds a list of a million indices (the training split of a large data set). The list itself takes
    8 MB, and its copy as much: a sweep of three points holds less than 100 MB at any time."""
    model = net()
    sampler = Listed(list(range(1_000_000)))
    training = training_of(model, data=DataLoader(Endless(1_000_000), 8, sampler=sampler))
    sweep(training, num_iter=3)  # what is imported and cached once
    assert peak_of(lambda: sweep(training, num_iter=3)) < 100
    assert sampler.indices == list(range(1_000_000))


# -- what only the training step holds


def test_a_random_generator_in_to_save() -> None:
    """The training step draws noise from a torch.Generator of its own, and the user gives it in to_save: it is no
    object with state_dict, but a generator is captured like any other. Its draws are those without a sweep."""

    def build() -> Training:
        model, noise = net(), torch.Generator().manual_seed(4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

        def step(engine: Engine, batch: Any) -> float:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(
                model(batch[0] + 0.1 * torch.randn(batch[0].shape, generator=noise)), batch[1]
            )
            loss.backward()
            optimizer.step()
            return loss.item()

        to_save = {"model": model, "optimizer": optimizer, "noise": noise}
        return Training(Engine(step), to_save, DataLoader(pairs(), 8))

    same_as_without(build)


def scaled(scaler: torch.amp.GradScaler, hang: Callable[[Engine, Any], None], **to_save: Any) -> Training:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def step(engine: Engine, batch: Any) -> float:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.item()

    trainer = Engine(step)
    hang(trainer, scaler)
    to_save = {"model": model, "optimizer": optimizer, **to_save}
    return Training(trainer, to_save, DataLoader(pairs(), 8), more=lambda: scaler)


def test_a_gradient_scaler_on_the_trainer() -> None:
    """trainer.scaler = GradScaler(), used by the training step and not in to_save. It comes back as the one in
    trainer.state.scaler does: scale and growth counter are those of a training without a sweep."""

    def build() -> Training:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=5)
        return scaled(scaler, lambda trainer, held: setattr(trainer, "scaler", held))

    same_as_without(build)


# -- handlers of an optimizer that is not in to_save


def test_a_sweep_inside_an_iteration_and_a_second_optimizer_with_handlers() -> None:
    """A sweep from an event of the training (ITERATION_STARTED), swept: the generator's optimizer. The critic's, not in
    to_save, has a schedule, a clipper and a logger. They count no update of the sweep, clip none and write none."""

    def outcome(swept: bool) -> Any:
        torch.manual_seed(0)
        models = nn.Linear(4, 1), nn.Linear(4, 1)
        optimizers = [torch.optim.SGD(model.parameters(), lr=0.05) for model in models]

        def step(engine: Engine, batch: Any) -> float:
            for model, optimizer in zip(models, optimizers, strict=True):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(batch[0]), batch[1])
                loss.backward()
                optimizer.step()
            return loss.item()

        trainer = Engine(step)
        scheduler = ScheduleLR(optimizers[1], schedules.Linear(total_steps=100))
        clipper = GradNormClipper(optimizers[1], percentile=50.0)
        logger = LRLogger(optimizers[1], history=99)
        for handler in (LRSchedulerHandler(scheduler), clipper, logger):
            handler.attach(trainer)
        training = Training(trainer, {"model": models[0], "optimizer": optimizers[0]}, list(DataLoader(pairs(), 8)))

        def look(engine: Engine) -> None:
            sweep(training, end_lr=1e-2)

        if swept:
            trainer.add_event_handler(Events.ITERATION_STARTED(once=3), look)
        trainer.run(training.data, max_epochs=2)
        report = clipper.report()
        return frozen(
            [scheduler.last_epoch, report.updates, report.clipped, report.threshold, logger.history(), list(models)]
        )

    check_same(outcome(False), outcome(True))


# -- a signal while things are put back


class Signalled:
    """State whose loading is interrupted by a signal."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.value = 0

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        os.kill(os.getpid(), self.number)
        time.sleep(0)  # where the interpreter calls the handler
        self.value = state["value"]


@contextmanager
def handler_for(number: int, error: BaseException) -> Iterator[None]:
    def raise_it(signal_number: int, frame: Any) -> None:
        raise error

    before = signal.signal(number, raise_it)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_sigterm_while_everything_is_put_back() -> None:
    """A cluster sends SIGTERM while the block ends; the user's handler raises SystemExit, to save in a finally.
    Everything is restored first, then the exit goes on its way; it is neither swallowed nor ahead of the weights."""

    def count(engine: Engine) -> None:
        state.value += 1

    state = Signalled(signal.SIGTERM)
    training = training_of(net(), first=count, state=state)
    before = training.picture()
    with handler_for(signal.SIGTERM, SystemExit(143)), pytest.raises(SystemExit, match="143"):
        sweep(training)
    check_same(before, training.picture())
