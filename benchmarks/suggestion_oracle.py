"""What each learning rate is really worth: short trainings over a dense grid of rates.

All rates and seeds of a task train at once, as one batch of models (``torch.func.vmap``): on a
CPU this is several times faster than one small model after the other. The optimizers are
therefore written out below for a rate per model; ``check`` compares them with ``torch.optim``.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from suggestion_field_tasks import FIELD_TASKS
from suggestion_tasks import TASKS as TABLE_TASKS
from suggestion_tasks import Task
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

TASKS = {**TABLE_TASKS, **FIELD_TASKS}

CACHE = Path(__file__).parent / "data" / "oracle.json"
GRID = tuple(10.0 ** (exponent / 4) for exponent in range(-24, 7))
SEEDS = (1000, 1001, 1002)
HORIZONS = {"short": (300, False), "long": (1500, True)}

OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]] = {
    "sgd": lambda params, lr: torch.optim.SGD(params, lr=lr),
    "nesterov": lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9, nesterov=True),
    "adam": lambda params, lr: torch.optim.Adam(params, lr=lr),
    "adamw": lambda params, lr: torch.optim.AdamW(params, lr=lr),
    "rmsprop": lambda params, lr: torch.optim.RMSprop(params, lr=lr),
    "radam": lambda params, lr: torch.optim.RAdam(params, lr=lr),
}


# On the field tasks only rates that are in question: the first and one past the last of ``GRID``.
FIELD_GRID = {name: (8, 31) if name in ("sgd", "nesterov") else (4, 25) for name in OPTIMIZERS}


class ManyRates:
    """One of ``OPTIMIZERS`` with a rate of its own for each model along the first axis."""

    def __init__(self, name: str) -> None:
        self.name, self.step_count = name, 0
        self.first: dict[str, Tensor] = {}
        self.second: dict[str, Tensor] = {}

    def step(self, params: dict[str, Tensor], grads: dict[str, Tensor], lrs: Tensor) -> None:
        """Update ``params`` in place; ``lrs`` is 1-d, one rate for each model."""
        self.step_count += 1
        for key, param in params.items():
            lr = lrs.view(-1, *[1] * (param.dim() - 1))
            first = self.first.setdefault(key, torch.zeros_like(param))
            second = self.second.setdefault(key, torch.zeros_like(param))
            if self.name == "adamw":
                param.mul_(1 - 0.01 * lr)
            param.sub_(lr * self._direction(grads[key], first, second))

    def _direction(self, g: Tensor, first: Tensor, second: Tensor) -> Tensor:
        if self.name == "sgd":
            return g
        if self.name == "nesterov":
            return g + 0.9 * first.mul_(0.9).add_(g)
        if self.name == "rmsprop":
            return g / second.mul_(0.99).addcmul_(g, g, value=0.01).sqrt().add_(1e-8)
        t, mean_decay, square_decay = self.step_count, 0.9, 0.999
        first.lerp_(g, 1 - mean_decay)
        second.mul_(square_decay).addcmul_(g, g, value=1 - square_decay)
        first_fix, second_fix = 1 - mean_decay**t, 1 - square_decay**t
        if self.name in ("adam", "adamw"):
            return first / first_fix / (second / second_fix).sqrt_().add_(1e-8)
        longest = 2 / (1 - square_decay) - 1
        length = longest - 2 * t * square_decay**t / second_fix
        if length <= 5:
            return first / first_fix
        rectify = (length - 4) * (length - 2) * longest
        rectify = (rectify / ((longest - 4) * (longest - 2) * length)) ** 0.5
        return first / first_fix * rectify * second_fix**0.5 / (second.sqrt().add_(1e-8))


def clipped(grads: dict[str, Tensor], max_norm: float) -> dict[str, Tensor]:
    """The gradients of each model along the first axis, brought to ``max_norm`` as ``clip_grad_norm_`` does."""
    if math.isinf(max_norm):
        return grads
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in grads.values()]).norm(dim=0)
    factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    return {key: g * factors.view(-1, *[1] * (g.dim() - 1)) for key, g in grads.items()}


def train_all(
    task: Task,
    optimizer: str,
    updates: int,
    decay: bool,
    grid: tuple[float, ...] = GRID,
    seeds: tuple[int, ...] = SEEDS,
) -> tuple[np.ndarray, np.ndarray]:
    """Validation losses after training, shape (seeds, rates), and before it, shape (seeds,)."""
    data, rates = task.data(), len(grid)
    models = [task.model(seed) for seed in seeds for _ in grid]
    stacked, buffers = stack_module_state(models)
    params = {key: value.detach().clone() for key, value in stacked.items()}
    template = models[0]
    template.train()
    lrs = torch.tensor(grid).repeat(len(seeds))

    def loss(p: dict[str, Tensor], b: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return task.loss(functional_call(template, (p, b), (x,)), y)

    def validate() -> np.ndarray:
        template.eval()
        run = vmap(loss, in_dims=(0, 0, None, None), chunk_size=16)
        with torch.no_grad():
            losses = run(params, buffers, data.x_val, data.y_val)
        template.train()
        return losses.view(len(seeds), rates).double().numpy()

    before = validate()[:, 0]
    gradients = vmap(grad(loss), in_dims=(0, 0, 0, 0), randomness="different")
    stepper = ManyRates(optimizer)
    streams = [task.batches(seed) for seed in seeds]
    torch.manual_seed(seeds[0])
    for update in range(updates):
        index = torch.stack([next(stream) for stream in streams]).repeat_interleave(rates, 0)
        grads = clipped(gradients(params, buffers, data.x[index], data.y[index]), task.clip)
        stepper.step(params, grads, lrs * (1 - update / updates) if decay else lrs)
    return validate(), before


def settings() -> dict[str, Any]:
    """What the numbers in the cache depend on."""
    return {
        "grid": [float(f"{lr:.6g}") for lr in GRID],
        "seeds": list(SEEDS),
        "horizons": {name: list(value) for name, value in HORIZONS.items()},
        "optimizers": list(OPTIMIZERS),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def rounded(values: np.ndarray) -> list[float | None]:
    """Six significant digits; None for what is not finite, since JSON has no NaN."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def read_cache(path: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """Cells computed so far, by name; a cache made with other settings is an error."""
    if not path.exists():
        return {}
    stored = json.loads(path.read_text())
    differing = [key for key in expected if stored["settings"].get(key) != expected[key]]
    if set(differing) - {"python", "torch"}:
        raise ValueError(f"{path.name} was made with other settings {differing}: move it away")
    return dict(stored["cells"])


def write_cache(path: Path, made_with: dict[str, Any], cells: dict[str, Any]) -> None:
    """Write atomically, one cell on a line, so that an interrupted run loses one cell at most."""
    lines = ",\n".join(f"{json.dumps(key)}:{json.dumps(cells[key], separators=(',', ':'))}" for key in sorted(cells))
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(f'{{"settings":{json.dumps(made_with)},"cells":{{\n{lines}\n}}}}\n')
    temporary.replace(path)


def compute(
    names: Iterable[str] = TASKS, optimizers: Iterable[str] = OPTIMIZERS, log: Callable[[str], None] = print
) -> dict[str, Any]:
    """Fill the cache for the tasks ``names`` and return all its cells."""
    cells = read_cache(CACHE, settings())
    for name in names:
        for optimizer in optimizers:
            for horizon, (updates, decay) in HORIZONS.items():
                key = f"{name}/{optimizer}/{horizon}"
                if key in cells:
                    continue
                first, last = FIELD_GRID[optimizer] if name in FIELD_TASKS else (0, len(GRID))
                losses, before = train_all(TASKS[name], optimizer, updates, decay, GRID[first:last])
                cells[key] = {"before": rounded(before), "after": [rounded(r) for r in losses]}
                if last - first < len(GRID):
                    cells[key]["grid"] = [first, last]
                write_cache(CACHE, settings(), cells)
                log(f"oracle {key}")
    return cells


def measured(cells: dict[str, Any], names: Iterable[str]) -> list[tuple[str, str]]:
    """Tasks and optimizers of which both horizons are known; a cell of the field tasks takes minutes."""
    return [
        (name, optimizer)
        for name in names
        for optimizer in OPTIMIZERS
        if all(f"{name}/{optimizer}/{horizon}" in cells for horizon in HORIZONS)
    ]


def check() -> float:
    """Largest relative difference between ``train_all`` and ``torch.optim`` over short runs."""
    worst = 0.0
    for name in ("digits_mlp", "char_gru", "digits_cnn"):
        task, rates = TASKS[name], (1e-3, 1e-2)
        for optimizer, make in OPTIMIZERS.items():
            many, _ = train_all(task, optimizer, 20, True, rates, SEEDS[:1])
            for column, lr in enumerate(rates):
                model, data, stream = task.model(SEEDS[0]), task.data(), task.batches(SEEDS[0])
                single = make(model.parameters(), lr)
                for update in range(20):
                    single.param_groups[0]["lr"] = lr * (1 - update / 20)
                    index = next(stream)
                    single.zero_grad()
                    task.loss(model(data.x[index]), data.y[index]).backward()
                    single.step()
                model.eval()
                with torch.no_grad():
                    one = float(task.loss(model(data.x_val), data.y_val))
                worst = max(worst, abs(one - many[0, column]) / abs(one))
    return worst
