"""The small real tasks on which suggestion rules are compared.

Every task is made of data that ships with scikit-learn or with Python itself, so nothing is
downloaded. Inputs and targets are plain tensors, and one model serves every package.
"""

from __future__ import annotations

import inspect
import math
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

TEXT_MODULES = ("argparse", "textwrap", "statistics", "tarfile")
SYMBOLS = string.ascii_lowercase + " \n.,()_=:'\"#0"
CONTEXT = 12


@dataclass(frozen=True)
class Split:
    """Training and validation tensors; the first axis runs over examples."""

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor


@dataclass(frozen=True)
class Task:
    """One data set, one model and one loss.

    ``half`` is "choose", "report", "unseen", "field choose" or "field report". A sweep makes each update of
    ``accumulate`` micro-batches, clips its gradients to the norm ``clip``, and uses a ``GradScaler`` where ``scaler``.
    """

    name: str
    half: str
    load: Callable[[], Split]
    build: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    batch_size: int
    accumulate: int = 1
    clip: float = math.inf
    scaler: bool = False

    def data(self) -> Split:
        """The task's data, the same split each time."""
        return self.load()

    def model(self, seed: int) -> nn.Module:
        """A model whose initial weights depend on ``seed`` only."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.build()

    def batches(self, seed: int) -> Iterator[Tensor]:
        """Endless index batches: a new order each epoch, incomplete batches left out."""
        count = len(self.data().x)
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(count, generator=generator)
            for start in range(0, count - self.batch_size + 1, self.batch_size):
                yield order[start : start + self.batch_size]

    def clipped(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The optimizer, which clips before each step as the task wants it, in whatever package steps it."""

        def clip(stepper: torch.optim.Optimizer, *_: Any) -> None:
            nn.utils.clip_grad_norm_([p for group in stepper.param_groups for p in group["params"]], self.clip)

        if math.isfinite(self.clip):
            optimizer.register_step_pre_hook(clip)
        return optimizer

    def loader(self, seed: int, num_iter: int, *, whole: bool = False) -> DataLoader[Any]:
        """A loader for a sweep, with a few more batches than it needs, so that none has to recycle it.

        ``whole``: a batch is all that one update sees.
        """
        updates = [index.tolist() for index in islice(self.batches(50 + seed), num_iter + 5)]
        size = self.batch_size if whole else self.batch_size // self.accumulate
        batches = [update[first : first + size] for update in updates for first in range(0, len(update), size)]
        data = self.data()
        return DataLoader(TensorDataset(data.x, data.y), batch_sampler=batches)


def _split(x: Tensor, y: Tensor, share: float = 0.3) -> Split:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    held_out = order[: int(share * len(x))]
    rest = order[int(share * len(x)) :]
    return Split(x[rest], y[rest], x[held_out], y[held_out])


def _table(name: str, *, scaled: bool = True, regression: bool = False) -> Split:
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if scaled:
        x = (x - x.mean(0)) / (x.std(0) + 1e-12)
    inputs = torch.tensor(np.asarray(x), dtype=torch.float32)
    if regression:
        return _split(inputs, torch.tensor(y, dtype=torch.float32)[:, None])
    return _split(inputs, torch.tensor(y))


@cache
def digits() -> Split:
    """Images of 8 x 8 pixels as rows, in [0, 1]."""
    x, y = datasets.load_digits(return_X_y=True)
    return _split(torch.tensor(x / 16.0, dtype=torch.float32), torch.tensor(y))


@cache
def digit_images() -> Split:
    """The same images with a channel axis."""
    flat = digits()
    return Split(flat.x.view(-1, 1, 8, 8), flat.y, flat.x_val.view(-1, 1, 8, 8), flat.y_val)


@cache
def digits_to_themselves() -> Split:
    """For autoencoders."""
    flat = digits()
    return Split(flat.x, flat.x, flat.x_val, flat.x_val)


@cache
def digit_halves() -> Split:
    """The upper half of each image and, to be predicted, its lower half."""
    flat = digits()
    return Split(flat.x[:, :32], flat.x[:, 32:], flat.x_val[:, :32], flat.x_val[:, 32:])


@cache
def digits_one_hot() -> Split:
    """The class as ten numbers, for regression."""
    flat = digits()
    return Split(flat.x, functional.one_hot(flat.y).float(), flat.x_val, functional.one_hot(flat.y_val).float())


@cache
def cancer() -> Split:
    """Standardized features."""
    return _table("breast_cancer")


@cache
def cancer_unscaled() -> Split:
    """Features as measured, some in the thousands."""
    return _table("breast_cancer", scaled=False)


@cache
def wine() -> Split:
    """Standardized features."""
    return _table("wine")


@cache
def iris() -> Split:
    """Standardized features."""
    return _table("iris")


@cache
def wine_unscaled() -> Split:
    """Features as measured, up to a thousand."""
    return _table("wine", scaled=False)


@cache
def iris_unscaled() -> Split:
    """Features in centimetres."""
    return _table("iris", scaled=False)


@cache
def diabetes() -> Split:
    """Target in standard deviations."""
    split = diabetes_unscaled()
    mean, std = split.y.mean(), split.y.std()
    return Split(split.x, (split.y - mean) / std, split.x_val, (split.y_val - mean) / std)


@cache
def diabetes_unscaled() -> Split:
    """Target as measured, up to 346; the features are of order 0.05."""
    return _table("diabetes", regression=True)


@cache
def text() -> Split:
    """Windows of ``CONTEXT`` characters and the characters that follow each."""
    source = "".join(inspect.getsource(__import__(name)) for name in TEXT_MODULES).lower()
    known = {symbol: index for index, symbol in enumerate(SYMBOLS)}
    codes = torch.tensor([known.get(symbol, len(SYMBOLS)) for symbol in source])
    windows = codes[: len(codes) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    split = _split(windows, windows, share=0.1)
    return Split(split.x[:, :-1], split.y[:, 1:], split.x_val[:600, :-1], split.y_val[:600, 1:])


def _mlp(*widths: int, act: type[nn.Module] = nn.ReLU, dropout: float = 0.0) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(fan_in, fan_out))
        if index < len(widths) - 2:
            layers.append(act())
            if dropout:
                layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


def _cnn(norm: bool) -> nn.Sequential:
    def block(fan_in: int, fan_out: int) -> list[nn.Module]:
        conv = nn.Conv2d(fan_in, fan_out, 3, padding=1)
        norms: list[nn.Module] = [nn.BatchNorm2d(fan_out)] if norm else []
        return [conv, *norms, nn.ReLU(), nn.AvgPool2d(2)]

    return nn.Sequential(*block(1, 6), *block(6, 10), nn.Flatten(), nn.Linear(40, 10))


def _normed_mlp() -> nn.Sequential:
    def layer(fan_in: int) -> list[nn.Module]:
        return [nn.Linear(fan_in, 48), nn.LayerNorm(48), nn.ReLU()]

    return nn.Sequential(*layer(64), *layer(48), nn.Linear(48, 10))


def _bigram() -> nn.Sequential:
    return nn.Sequential(nn.Embedding(len(SYMBOLS) + 1, 24), _mlp(24, 48, len(SYMBOLS) + 1))


class CharGRU(nn.Module):
    """Predicts each next character with one recurrent layer."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(SYMBOLS) + 1, 16)
        self.inputs = nn.Linear(16, 3 * width)
        self.hidden = nn.Linear(width, 3 * width)
        self.head = nn.Linear(width, len(SYMBOLS) + 1)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits of shape (batch, position, symbol) from codes of shape (batch, position)."""
        inputs = self.inputs(self.embed(codes))
        state = torch.zeros_like(inputs[:, 0, : self.hidden.in_features])
        states = []
        for now in inputs.unbind(1):
            reset_in, update_in, new_in = now.chunk(3, -1)
            reset_h, update_h, new_h = self.hidden(state).chunk(3, -1)
            update = torch.sigmoid(update_in + update_h)
            new = torch.tanh(new_in + torch.sigmoid(reset_in + reset_h) * new_h)
            state = new + update * (state - new)
            states.append(state)
        return self.head(torch.stack(states, 1))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norms[0](x)).chunk(3, -1)
        length = x.shape[-2]
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        x = x + self.out(torch.softmax(scores.masked_fill(future, -1e9), -1) @ value)
        return x + self.mlp(self.norms[1](x))


class CharGPT(nn.Module):
    """Predicts each next character with one causal attention block of one head."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(SYMBOLS) + 1, width)
        self.position = nn.Parameter(0.02 * torch.randn(CONTEXT, width))
        self.blocks = nn.Sequential(_Block(width), nn.LayerNorm(width))
        self.head = nn.Linear(width, len(SYMBOLS) + 1)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits of shape (batch, position, symbol) from codes of shape (batch, position)."""
        return self.head(self.blocks(self.embed(codes) + self.position))


def next_symbol_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over all positions."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def smoothed_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with a tenth of label smoothing."""
    return functional.cross_entropy(logits, targets, label_smoothing=0.1)


# On tables of some hundred rows 1,500 updates can overfit, and then the best rate is the one that
# learns least, which no range test can see. Smoothed labels and a linear model prevent that.
#
# Neighbouring kinds are dealt to different halves, so that each half has images, tables, text
# and regression in it.
TASKS = {
    task.name: task
    for task in (
        Task("digits_mlp", "choose", digits, lambda: _mlp(64, 64, 10), functional.cross_entropy, 32),
        Task("digits_small_batch", "report", digits, lambda: _mlp(64, 32, 10), functional.cross_entropy, 4),
        Task("digits_cnn", "report", digit_images, lambda: _cnn(False), functional.cross_entropy, 32),
        Task("digits_cnn_bn", "choose", digit_images, lambda: _cnn(True), functional.cross_entropy, 32),
        Task(
            "digits_autoencoder",
            "choose",
            digits_to_themselves,
            lambda: _mlp(64, 32, 12, 32, 64),
            functional.mse_loss,
            32,
        ),
        Task(
            "digits_deep_tanh",
            "report",
            digits,
            lambda: _mlp(64, 32, 32, 32, 32, 32, 10, act=nn.Tanh),
            functional.cross_entropy,
            32,
        ),
        Task(
            "digits_dropout",
            "choose",
            digits,
            lambda: _mlp(64, 64, 64, 10, dropout=0.4),
            functional.cross_entropy,
            32,
        ),
        Task("digits_softmax", "report", digits, lambda: _mlp(64, 10), functional.cross_entropy, 32),
        Task("digits_halves", "report", digit_halves, lambda: _mlp(32, 48, 32), functional.mse_loss, 32),
        Task("cancer_mlp", "report", cancer, lambda: _mlp(30, 16, 2), smoothed_cross_entropy, 16),
        Task(
            "cancer_unscaled",
            "choose",
            cancer_unscaled,
            lambda: _mlp(30, 16, 2),
            functional.cross_entropy,
            16,
        ),
        Task("wine_mlp", "choose", wine, lambda: _mlp(13, 16, 3), smoothed_cross_entropy, 16),
        Task("iris_unscaled", "report", iris_unscaled, lambda: _mlp(4, 16, 3), functional.cross_entropy, 16),
        Task("diabetes_linear", "choose", diabetes, lambda: _mlp(10, 1), functional.mse_loss, 16),
        Task(
            "diabetes_unscaled",
            "report",
            diabetes_unscaled,
            lambda: _mlp(10, 32, 1),
            functional.mse_loss,
            32,
        ),
        Task("char_gru", "choose", text, CharGRU, next_symbol_loss, 8),
        Task("char_gpt", "report", text, CharGPT, next_symbol_loss, 8),
        Task("digits_pairs", "choose", digits, lambda: _mlp(64, 10), functional.cross_entropy, 2),
        Task("iris_pairs", "report", iris, lambda: _mlp(4, 16, 3), smoothed_cross_entropy, 2),
        Task(
            "digits_sigmoid",
            "choose",
            digits,
            lambda: _mlp(64, 32, 32, 10, act=nn.Sigmoid),
            functional.cross_entropy,
            32,
        ),
        Task(
            "digits_deep_gelu",
            "report",
            digits,
            lambda: _mlp(64, 32, 32, 32, 32, 10, act=nn.GELU),
            functional.cross_entropy,
            16,
        ),
        Task("digits_layernorm", "choose", digits, _normed_mlp, functional.cross_entropy, 16),
        Task(
            "digits_soft_code",
            "report",
            digits_to_themselves,
            lambda: _mlp(64, 24, 64),
            functional.binary_cross_entropy_with_logits,
            16,
        ),
        Task("digits_margin", "choose", digits, lambda: _mlp(64, 32, 10), functional.multi_margin_loss, 16),
        Task("wine_unscaled", "report", wine_unscaled, lambda: _mlp(13, 16, 3), functional.cross_entropy, 16),
        Task("char_bigram", "choose", text, _bigram, next_symbol_loss, 8),
        Task("digits_halves_l1", "report", digit_halves, lambda: _mlp(32, 48, 32, act=nn.Tanh), functional.l1_loss, 8),
        Task("digits_wide", "unseen", digits, lambda: _mlp(64, 128, 10), functional.cross_entropy, 128),
        Task("digits_one_hot", "unseen", digits_one_hot, lambda: _mlp(64, 48, 10, act=nn.ELU), functional.mse_loss, 16),
        Task(
            "digits_bottleneck",
            "unseen",
            digits_to_themselves,
            lambda: _mlp(64, 16, 64, act=nn.SiLU),
            functional.smooth_l1_loss,
            64,
        ),
        Task("cancer_softmax", "unseen", cancer, lambda: _mlp(30, 2), smoothed_cross_entropy, 8),
        Task("wine_tanh", "unseen", wine, lambda: _mlp(13, 24, 24, 3, act=nn.Tanh), smoothed_cross_entropy, 8),
        Task("iris_single", "unseen", iris, lambda: _mlp(4, 3), smoothed_cross_entropy, 1),
        Task("diabetes_dropout", "unseen", diabetes, lambda: _mlp(10, 16, 1, dropout=0.3), functional.huber_loss, 8),
        Task("char_pairs", "unseen", text, _bigram, next_symbol_loss, 2),
    )
}
