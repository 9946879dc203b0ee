"""What a sweep makes is gone afterwards, what it takes away is back, and what cannot be known is said."""

from __future__ import annotations

import functools
import random
import re
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Sampler, Subset, random_split
from tqdm import tqdm
from trainings import Training, net, pairs, same_as_without, sweep, training_of

from ignite_lr import LRFinder


class Model(nn.Module):
    """A network that ``change`` works on before each step."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()
        self.norm = nn.BatchNorm1d(16)
        self.register_buffer("scale", torch.ones(()))
        self.pruned: nn.Module | None = nn.Linear(4, 4)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        hidden = self.net[1](self.net[0](x))
        return self.net[2](hidden) * self.scale


def make_a_buffer(model: Model) -> None:
    if not hasattr(model, "later"):
        model.register_buffer("later", torch.zeros(3))
    model.later += 1
    model.scale = 1 + 0.01 * model.later.mean()


def drop_a_module(model: Model) -> None:
    if model.calls > 3 and "pruned" in model._modules:
        del model.pruned


def swap_a_module(model: Model) -> None:
    if model.calls == 3:
        model.net[1] = nn.ReLU()


def add_a_module(model: Model) -> None:
    if len(model.net) < 5:
        model.net.append(nn.Identity())


def drop_a_buffer(model: Model) -> None:
    if model.calls == 3:
        model.norm._buffers.pop("running_mean", None)


def change_a_norm(model: Model) -> None:
    model.norm.momentum = 0.9 * model.norm.momentum
    model.norm.eps += 1e-6


def hook_a_parameter(model: Model) -> None:
    if model.calls % 2 == 0:
        model.net[0].weight.register_hook(lambda gradient: 0.9 * gradient)


def damp(parameter: torch.Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.mul_(0.9)


def hook_after_accumulation(model: Model) -> None:
    if model.calls % 2 == 0:
        model.net[0].weight.register_post_accumulate_grad_hook(damp)


def hook_a_module(model: Model) -> None:
    if model.calls % 2 == 0:
        model.net[0].register_forward_hook(lambda module, args, output: 0.9 * output)
        model.net[0].register_forward_pre_hook(lambda module, args: (0.9 * args[0],))
        model.net[2].register_full_backward_hook(lambda module, gradients, outputs: (0.9 * gradients[0],))


def freeze(model: Model) -> None:
    model.net[2].weight.requires_grad_(model.calls < 3)


def mark_a_parameter(model: Model) -> None:
    weight: Any = model.net[0].weight
    weight.seen = getattr(weight, "seen", 0) + 1
    model.scale = torch.tensor(1 + 0.01 * weight.seen)


def evaluate(model: Model) -> None:
    model.norm.eval()
    model.net.train(model.calls < 2)


def patch(model: Model) -> None:
    inner = model.net[0].forward
    model.net[0].forward = lambda x: 0.99 * inner(x)  # type: ignore[method-assign]  # as some tools do


CHANGES = [
    *(make_a_buffer, drop_a_module, swap_a_module, add_a_module, drop_a_buffer, change_a_norm, hook_a_parameter),
    *(hook_after_accumulation, hook_a_module, freeze, mark_a_parameter, evaluate, patch),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("before", [0, 8])
def test_a_module_that_the_training_step_changes(change: Callable[[Any], None], before: int) -> None:
    def build() -> Training:
        model = Model()
        names = lambda: [list(vars(part)) for part in model.modules()] + [list(model._modules), list(model._buffers)]  # noqa: E731 - a picture
        return training_of(
            model, first=lambda _: change(model), more=lambda: [names(), model.calls, model.norm.momentum]
        )

    assert same_as_without(build, before=before) == []


def test_hooks_that_the_training_step_removes_are_back() -> None:
    def build() -> Training:
        model = Model()
        handles = [
            model.net[0].register_forward_hook(lambda module, args, output: 0.9 * output),
            model.net[0].weight.register_hook(lambda gradient: 0.9 * gradient),
            model.net[2].weight.register_post_accumulate_grad_hook(damp),
        ]

        def first(_: Engine) -> None:
            if model.calls == 10:
                for handle in handles:
                    handle.remove()

        return training_of(model, first=first, more=lambda: model.calls)

    assert same_as_without(build, before=4) == []


class Half(nn.Module):
    """A scripted or traced part in a network of Python."""

    def __init__(self, part: Any) -> None:
        super().__init__()
        self.part = part
        self.last = nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.part(x))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 16)
        self.norm = nn.BatchNorm1d(16)
        self.calls = 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen = 0.5 * self.seen + 0.1
        return self.norm(self.linear(x)) * (1.0 + 0.01 * self.calls) + self.seen


@pytest.mark.parametrize("way", ["scripted", "traced", "whole", "loaded"])
def test_a_scripted_part(way: str, tmp_path: Any) -> None:
    def build() -> Training:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if way == "traced":
                part = torch.jit.trace(nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16)), torch.ones(4, 4))
            else:
                part = torch.jit.script(Counting())
            if way == "loaded":
                torch.jit.save(part, str(tmp_path / "part.pt"))
                part = torch.jit.load(str(tmp_path / "part.pt"))
            model = torch.jit.script(nn.Sequential(part, nn.Linear(16, 1))) if way == "whole" else Half(part)
        inner = model[0] if way == "whole" else part
        return training_of(model, more=lambda: getattr(inner, "calls", 0))

    assert same_as_without(build, before=4) == []


# -- data


class Augmented(Dataset):  # type: ignore[type-arg]  # of pairs
    def __init__(self) -> None:
        self.pairs = pairs(48)
        self.random = np.random.default_rng(4)
        self.order = list(range(48))
        self.served = 0

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> Any:
        self.served += 1
        if self.served % 48 == 0:
            random.shuffle(self.order)
        x, y = self.pairs[self.order[index]]
        return x + float(self.random.normal()), y


class Stream(IterableDataset):  # type: ignore[type-arg]  # of pairs
    def __init__(self) -> None:
        self.at = 0
        self.rows = iter(range(10**6))

    def __iter__(self) -> Iterator[Any]:
        x, y = pairs(64).tensors
        for _ in range(32):
            self.at = (self.at + 1 + next(self.rows)) % 64
            yield x[self.at], y[self.at]


class Batches(Sampler):  # type: ignore[type-arg]  # of batches
    def __init__(self) -> None:
        self.random = random.Random(2)
        self.queue: deque[list[int]] = deque()

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(6):
            if not self.queue:
                self.queue.extend([[self.random.randrange(48) for _ in range(8)] for _ in range(4)])
            yield self.queue.popleft()

    def __len__(self) -> int:
        return 6


class Noisy:
    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(3)

    def collate(self, rows: Any) -> Any:
        x, y = torch.utils.data.default_collate(rows)
        return x + torch.randn(x.shape, generator=self.generator), y


def noisy(generator: torch.Generator, rows: Any) -> Any:
    x, y = torch.utils.data.default_collate(rows)
    return x + torch.randn(x.shape, generator=generator), y


def closure() -> Callable[[Any], Any]:
    generator, calls = np.random.default_rng(3), 0

    def collate(rows: Any) -> Any:
        nonlocal calls
        calls += 1
        x, y = torch.utils.data.default_collate(rows)
        return x + float(generator.normal()) + 0.1 * calls, y

    return collate


class Epochs:
    """A loader of the user's own: an epoch, a position, a generator of Python that it keeps."""

    def __init__(self) -> None:
        self.epoch = np.int64(0)
        self.tensors = OrderedDict(x=pairs().tensors[0], y=pairs().tensors[1])

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[Any]:
        self.epoch = self.epoch + 1
        order = torch.randperm(64, generator=torch.Generator().manual_seed(int(self.epoch)))
        for start in range(0, 64, 8):
            rows = order[start : start + 8]
            yield self.tensors["x"][rows], self.tensors["y"][rows]


class InPlace:
    """Adds noise to its own tensors."""

    def __init__(self) -> None:
        self.batches = list(DataLoader(pairs(), 8))

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[Any]:
        for x, y in self.batches:
            yield x.add_(0.01), y


class Delegating:
    """Passes everything on to the loader inside."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        if name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)


DATA: dict[str, Callable[[], Any]] = {
    "augmented": lambda: DataLoader(Augmented(), 8),
    "subset": lambda: DataLoader(Subset(Augmented(), range(40)), 8, shuffle=True),
    "concat": lambda: DataLoader(ConcatDataset([Augmented(), Subset(Augmented(), range(8))]), 8),
    "split": lambda: DataLoader(random_split(Augmented(), [40, 8])[0], 8),
    "stream": lambda: DataLoader(Stream(), 8),
    "batch sampler": lambda: DataLoader(pairs(48), batch_sampler=Batches()),
    "collate method": lambda: DataLoader(pairs(), 8, collate_fn=Noisy().collate),
    "collate partial": lambda: DataLoader(pairs(), 8, collate_fn=functools.partial(noisy, torch.Generator())),
    "collate closure": lambda: DataLoader(pairs(), 8, collate_fn=closure()),
    "own loader": Epochs,
    "tqdm": lambda: tqdm(DataLoader(Augmented(), 8), disable=True),
    "tqdm of own": lambda: tqdm(Epochs(), disable=True),
    "in place": InPlace,
    "delegating": lambda: Delegating(DataLoader(Augmented(), 8, generator=torch.Generator())),
    "list": lambda: list(DataLoader(pairs(), 8)),
}


@pytest.mark.parametrize("before", [0, 8])
@pytest.mark.parametrize("name", DATA)
def test_data_with_a_state(name: str, before: int) -> None:
    assert same_as_without(lambda: training_of(net(), data=DATA[name]()), before=before) == []


# -- optimizers


@dataclass
class Preconditioner:
    factor: torch.Tensor
    age: int = 0


class Keeping(torch.optim.Optimizer):
    """Keeps everything everywhere."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), {"lr": 0.05})
        self.model = model
        self.slow = deque([p.detach().clone() for p in model.parameters()])
        self.by_module = {module: {"mean": torch.zeros(()), "rows": []} for module in model.modules()}
        self.steps = np.int64(0)
        self.generator = torch.Generator().manual_seed(1)
        self.numbers = [0.0]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        self.steps += 1
        self.numbers[0] += 0.5
        self.numbers.append(float(self.steps))
        for group in self.param_groups:
            for index, p in enumerate(group["params"]):
                state = self.state[p]
                if "kept" not in state:
                    state["kept"] = Preconditioner(torch.ones_like(p))
                    state["history"] = deque(maxlen=3)
                kept = state["kept"]
                kept.age += 1
                kept.factor = 0.9 * kept.factor + 0.1 * p.grad.square()
                state["history"].append(p.grad.mean())
                noise = torch.randn(p.shape, generator=self.generator)
                p.sub_(group["lr"] * (p.grad / (kept.factor.sqrt() + 1) + 0.01 * noise + state["history"][0]))
                self.slow[index] = self.slow[index].lerp(p, 0.1)
                if self.steps % 3 == 0:
                    p.copy_(self.slow[index])
        for kept_rows in self.by_module.values():
            kept_rows["mean"] += 0.01
            kept_rows["rows"].append(len(kept_rows["rows"]))
        self.param_groups[0]["seen"] = self.param_groups[0].get("seen", 0) + 1


@pytest.mark.parametrize("before", [0, 8])
def test_an_optimizer_that_keeps_everything_everywhere(before: int) -> None:
    def build() -> Training:
        model = net()
        optimizer = Keeping(model)
        more = lambda: [optimizer.slow, optimizer.by_module, optimizer.steps, optimizer.numbers, optimizer.param_groups]  # noqa: E731 - a picture
        return training_of(model, optimizer, more=more)

    assert same_as_without(build, before=before) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.9),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=500),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 0.99**step),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [torch.optim.lr_scheduler.ConstantLR(o, 0.5, 4), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)],
            [4],
        ),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 5),
    ],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")
@pytest.mark.parametrize("saved", [True, False])
def test_a_scheduler_that_the_training_step_advances(make: Callable[[Any], Any], saved: bool) -> None:
    def build() -> Training:
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        scheduler = make(optimizer)

        def step(engine: Engine, batch: Any) -> float:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(batch[0]), batch[1])
            loss.backward()
            optimizer.step()
            scheduler.step()
            return loss.item()

        to_save = {"model": model, "optimizer": optimizer, **({"scheduler": scheduler} if saved else {})}
        trainer = Engine(step)
        if not saved:
            trainer.scheduler = scheduler  # type: ignore[attr-defined]  # as users do
        return Training(
            trainer, to_save, DataLoader(pairs(), 8, shuffle=True), more=lambda: vars(scheduler)["last_epoch"]
        )

    same_as_without(build, before=4)


# -- what hangs on the trainer


class Runner:
    """The training step is a method of an object that has everything."""

    def __init__(self) -> None:
        self.model = Model()
        self.teacher = net()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        self.mean = 0.0
        self.losses: list[float] = []
        self.loader = DataLoader(Augmented(), 8, shuffle=True)
        self.noise = torch.Generator().manual_seed(8)
        self.finder = LRFinder()

    def step(self, engine: Engine, batch: Any) -> float:
        x = batch[0] + 0.01 * torch.randn(batch[0].shape, generator=self.noise)
        self.optimizer.zero_grad()
        loss = nn.functional.mse_loss(self.model(x), batch[1]) + 0.1 * (self.model(x) - self.teacher(x)).square().mean()
        loss.backward()
        self.optimizer.step()
        self.mean = 0.9 * self.mean + 0.1 * loss.item()
        self.losses.append(loss.item())
        with torch.no_grad():
            for slow, fast in zip(self.teacher.parameters(), self.model.net.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
        return loss.item() + self.mean


@pytest.mark.parametrize("partial", [False, True])
def test_the_object_whose_method_the_training_step_is(partial: bool) -> None:
    def build() -> Training:
        runner = Runner()
        trainer = Engine(functools.partial(runner.step) if partial else runner.step)
        to_save = {"model": runner.model, "optimizer": runner.optimizer}
        return Training(trainer, to_save, runner.loader, more=lambda: [runner.teacher, runner.mean, runner.losses])

    assert same_as_without(build, before=8) == []


def test_repeats_read_on_although_the_loader_hangs_on_the_runner() -> None:
    runner = Runner()
    runner.loader = DataLoader(pairs(), 8, sampler=Batches2())
    trainer = Engine(runner.step)
    seen: list[Any] = []
    trainer_step = runner.step

    def step(engine: Engine, batch: Any) -> float:
        seen.append(batch[0].clone())
        return trainer_step(engine, batch)

    trainer = Engine(step)
    trainer.runner = runner  # type: ignore[attr-defined]  # as users do
    sweep(
        Training(trainer, {"model": runner.model, "optimizer": runner.optimizer}, runner.loader), num_iter=4, repeats=2
    )
    assert len(seen) == 8
    assert not torch.equal(torch.stack(seen[:4]), torch.stack(seen[4:]))


class Batches2(Sampler):  # type: ignore[type-arg]  # of rows
    def __init__(self) -> None:
        self.random = random.Random(2)

    def __iter__(self) -> Iterator[int]:
        return iter([self.random.randrange(64) for _ in range(32)])

    def __len__(self) -> int:
        return 32


# -- what cannot be known


class Cycling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net()
        self.phases = (phase for phase in range(10**6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) * (1 + next(self.phases) % 2)


def test_what_cannot_be_captured_is_named_in_one_warning() -> None:
    model = Cycling()
    training = training_of(model)
    training.data.dataset.source = (row for row in range(3))
    _, (said,) = sweep(training, num_iter=3)
    assert re.search(r"cannot be captured.*builtins\.generator \(model\), builtins\.generator \(data\)", said)


@pytest.mark.parametrize("changes", [True, False])
def test_data_beyond_what_is_copied_is_looked_at_afterwards(changes: bool) -> None:
    big = torch.zeros(3000, 6000)  # 72 MB
    dataset = pairs()
    dataset.images = big
    training = training_of(net(), data=DataLoader(dataset, 8), first=lambda _: big.add_(1) if changes else None)
    _, said = sweep(training, num_iter=3)
    assert [text for text in said if "too large to be copied" in text] == said
    assert len(said) == changes


def test_a_one_shot_iterator_is_warned_about_once() -> None:
    batches = DataLoader(pairs(), 8)
    for data in (iter(batches), (batch for batch in batches)):
        _, (said,) = sweep(training_of(net(), data=data), num_iter=3)
        assert "one-shot iterator" in said
