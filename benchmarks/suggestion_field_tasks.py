"""Small tasks of the kinds that people train: photographs, recorded series, words, ratings, fine-tuning, a simulator.

The data ships with scikit-learn (two photographs, the digits), statsmodels (weekly CO2 at Mauna Loa, monthly sea
temperatures, a survey of 6,366 people) and Python itself (the text of its help topics). Each task says which half it
belongs to: that was written down before any figure of it was seen.
"""

from __future__ import annotations

import re
from functools import cache
from pydoc_data.topics import topics

import numpy as np
import torch
from sklearn import datasets
from suggestion_tasks import Split, Task, digits
from torch import Tensor, nn
from torch.nn import functional

WINDOW, AHEAD = 32, 4
WORDS = 200
WORD_CONTEXT = 10
POLE_STEPS = 25


def _split(x: Tensor, y: Tensor, share: float = 0.3) -> Split:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    held_out, rest = order[: int(share * len(x))], order[int(share * len(x)) :]
    return Split(x[rest], y[rest], x[held_out], y[held_out])


# -- photographs


@cache
def photographs() -> Tensor:
    """Both photographs of scikit-learn, shape (2, 3, 426, 640), in [0, 1]."""
    images = np.stack(datasets.load_sample_images().images)[:, :426]
    return torch.tensor(images, dtype=torch.float32).permute(0, 3, 1, 2) / 255


def _patches(size: int, count: int) -> tuple[Tensor, Tensor]:
    """Patches of shape (count, 3, size, size), and which quarter of which photograph each comes from."""
    photos, generator = photographs(), torch.Generator().manual_seed(1)
    photo = torch.randint(2, (count,), generator=generator)
    top = torch.randint(photos.shape[2] - size, (count,), generator=generator)
    left = torch.randint(photos.shape[3] - size, (count,), generator=generator)
    cut = [
        photos[p, :, t : t + size, c : c + size]
        for p, t, c in zip(photo.tolist(), top.tolist(), left.tolist(), strict=True)
    ]
    return torch.stack(cut), 2 * photo + (left > photos.shape[3] // 2)


@cache
def noisy_patches() -> Split:
    """Grey patches of 10 x 10 with noise, and without."""
    clean = _patches(10, 2000)[0].mean(1, keepdim=True)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    return _split(clean + 0.1 * noise, clean)


@cache
def small_patches() -> Split:
    """Grey patches of 6 x 6, and what they were at 12 x 12."""
    large = _patches(12, 2000)[0].mean(1, keepdim=True)
    return _split(functional.avg_pool2d(large, 2), large)


@cache
def quarters() -> Split:
    """Colour patches of 8 x 8, and the quarter they come from, one of four."""
    x, y = _patches(8, 2000)
    return _split(x, y)


class Denoiser(nn.Module):
    """Predicts the noise with three convolutions and takes it away."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images of the shape given."""
        return x - self.noise(x)


def _upscaler() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1), nn.PixelShuffle(2))


class SmallResNet(nn.Module):
    """Two residual blocks with BatchNorm."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)) for _ in range(2)
        )
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of four classes."""
        x = functional.avg_pool2d(functional.relu(self.stem(x)), 2)
        for block in self.blocks:
            x = functional.relu(x + block(x))
        return self.head(x.mean((2, 3)))


# -- recorded series


def _windows(series: np.ndarray) -> Split:
    """Standardized windows of ``WINDOW`` values and the ``AHEAD`` values that follow; the last fifth is held out."""
    values = torch.tensor((series - series.mean()) / series.std(), dtype=torch.float32)
    windows = values.unfold(0, WINDOW + AHEAD, 1)
    cut = int(0.8 * len(windows))
    x, y = windows[:, :WINDOW], windows[:, WINDOW:]
    return Split(x[:cut], y[:cut], x[cut + WINDOW :], y[cut + WINDOW :])


@cache
def carbon_dioxide() -> Split:
    """Weekly changes of CO2."""
    from statsmodels.datasets import co2

    series = co2.load_pandas().data["co2"].interpolate().to_numpy()
    return _windows(np.diff(series, 4))


@cache
def sea_temperature() -> Split:
    """Monthly temperatures of the sea off Peru."""
    from statsmodels.datasets import elnino

    table = elnino.load_pandas().data
    return _windows(table.drop(columns="YEAR").to_numpy(float).ravel())


def _series_cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, WINDOW)),
        nn.Conv1d(1, 8, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool1d(2),
        nn.Conv1d(8, 8, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool1d(4),
        nn.Flatten(),
        nn.Linear(32, AHEAD),
    )


class SeriesGRU(nn.Module):
    """One recurrent layer over pieces of four values."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        self.inputs, self.hidden = nn.Linear(4, 3 * width), nn.Linear(width, 3 * width)
        self.head = nn.Linear(width, AHEAD)

    def forward(self, x: Tensor) -> Tensor:
        """The next values."""
        state = torch.zeros_like(self.inputs(x[:, :4])[:, : self.hidden.in_features])
        for piece in x.unflatten(1, (-1, 4)).unbind(1):
            reset_in, update_in, new_in = self.inputs(piece).chunk(3, -1)
            reset_h, update_h, new_h = self.hidden(state).chunk(3, -1)
            new = torch.tanh(new_in + torch.sigmoid(reset_in + reset_h) * new_h)
            state = new + torch.sigmoid(update_in + update_h) * (state - new)
        return self.head(state)


class PostNormBlock(nn.Module):
    """A Transformer block as it was first published: the norms come after the sums."""

    def __init__(self, width: int, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape given, (batch, position, width)."""
        query, key, value = self.qkv(x).chunk(3, -1)
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        if self.causal:
            future = torch.ones(x.shape[-2], x.shape[-2], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(future, -1e9)
        x = self.norms[0](x + self.out(torch.softmax(scores, -1) @ value))
        return self.norms[1](x + self.mlp(x))


class SeriesTransformer(nn.Module):
    """Two post-LN blocks over pieces of four values."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.position = nn.Parameter(0.02 * torch.randn(WINDOW // 4, width))
        self.blocks = nn.Sequential(PostNormBlock(width, False), PostNormBlock(width, False))
        self.head = nn.Linear(width, AHEAD)

    def forward(self, x: Tensor) -> Tensor:
        """The next values."""
        return self.head(self.blocks(self.embed(x.unflatten(1, (-1, 4))) + self.position).mean(1))


# -- words


@cache
def words() -> Split:
    """Windows of words of Python's help, the rare ones as one, and the words that follow each."""
    found = re.findall(r"[a-z]+|[.,()]", " ".join(topics[name] for name in sorted(topics)).lower())
    kinds, counts = np.unique(found, return_counts=True)
    known = {word: index for index, word in enumerate(kinds[np.argsort(-counts, kind="stable")][: WORDS - 1])}
    codes = torch.tensor([known.get(word, WORDS - 1) for word in found])
    split = _split(
        *[codes[: len(codes) // (WORD_CONTEXT + 1) * (WORD_CONTEXT + 1)].view(-1, WORD_CONTEXT + 1)] * 2, 0.1
    )
    return Split(split.x[:, :-1], split.y[:, 1:], split.x_val[:400, :-1], split.y_val[:400, 1:])


class WordTransformer(nn.Module):
    """Predicts each next word with two causal post-LN blocks."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, width)
        self.position = nn.Parameter(0.02 * torch.randn(WORD_CONTEXT, width))
        self.blocks = nn.Sequential(PostNormBlock(width, True), PostNormBlock(width, True))
        self.head = nn.Linear(width, WORDS)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits of shape (batch, position, word)."""
        return self.head(self.blocks(self.embed(codes) + self.position))


def next_word_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over all positions."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


# -- ratings


@cache
def ratings() -> Split:
    """Seven answers of each person as categories, and the rating, standardized."""
    from statsmodels.datasets import fair

    table = fair.load_pandas().data.drop(columns="affairs").to_numpy(float)
    categories = np.stack([np.unique(column, return_inverse=True)[1] for column in table.T[1:]], 1)
    rating = (table[:, :1] - table[:, 0].mean()) / table[:, 0].std()
    offsets = np.concatenate(([0], np.cumsum(categories.max(0) + 1)[:-1]))
    return _split(torch.tensor(categories + offsets), torch.tensor(rating, dtype=torch.float32))


class Recommender(nn.Module):
    """Embeddings of all categories, side by side, into a small MLP."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        codes = ratings().x
        self.embed = nn.Embedding(int(codes.max()) + 1, width)
        self.mlp = nn.Sequential(nn.Linear(width * codes.shape[1], 24), nn.ReLU(), nn.Linear(24, 1))

    def forward(self, codes: Tensor) -> Tensor:
        """Ratings of shape (batch, 1)."""
        return self.mlp(self.embed(codes).flatten(1))


# -- digits in other ways


class DigitVAE(nn.Module):
    """A variational autoencoder with eight latent numbers; without noise in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16))
        self.decoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the pixels, then mean and log variance, shape (batch, 64 + 16)."""
        mean, log_variance = self.encoder(x).chunk(2, -1)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return torch.cat((self.decoder(mean + noise * (log_variance / 2).exp()), mean, log_variance), -1)


def negative_elbo(output: Tensor, pixels: Tensor) -> Tensor:
    """Reconstruction plus Kullback-Leibler divergence, per image."""
    logits, mean, log_variance = output[:, :64], output[:, 64:72], output[:, 72:]
    reconstruction = functional.binary_cross_entropy_with_logits(logits, pixels, reduction="none").sum(-1)
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)
    return (reconstruction + divergence).mean()


@cache
def digits_themselves() -> Split:
    """For the VAE."""
    flat = digits()
    return Split(flat.x, flat.x, flat.x_val, flat.x_val)


@cache
def triplets() -> Split:
    """An image, another of the same class, and one of another: shape (n, 3, 64)."""

    def three(x: Tensor, y: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        same, other = [], []
        for label in y.tolist():
            mine, theirs = torch.nonzero(y == label)[:, 0], torch.nonzero(y != label)[:, 0]
            same.append(mine[torch.randint(len(mine), (), generator=generator)])
            other.append(theirs[torch.randint(len(theirs), (), generator=generator)])
        return torch.stack((x, x[torch.stack(same)], x[torch.stack(other)]), 1)

    flat = digits()
    x, x_val = three(flat.x, flat.y, 1), three(flat.x_val, flat.y_val, 2)
    return Split(x, flat.y, x_val, flat.y_val)


def triplet_loss(embedded: Tensor, _: Tensor) -> Tensor:
    """The margin loss of embeddings of shape (batch, 3, width)."""
    anchor, same, other = embedded.unbind(1)
    return functional.triplet_margin_loss(anchor, same, other)


@cache
def rare_and_wrong() -> Split:
    """Three in four images of five classes left out, and a fifth of the labels wrong; validation is as it was."""
    flat, generator = digits(), torch.Generator().manual_seed(3)
    kept = (flat.y < 5) | (torch.rand(len(flat.y), generator=generator) < 0.25)
    x, y = flat.x[kept], flat.y[kept]
    wrong = torch.rand(len(y), generator=generator) < 0.2
    return Split(x, torch.where(wrong, torch.randint(10, y.shape, generator=generator), y), flat.x_val, flat.y_val)


@cache
def _low_digits_body() -> nn.Sequential:
    """A body trained to tell the digits 0 to 4."""
    flat = digits()
    low = flat.y < 5
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body, head = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU()), nn.Linear(32, 5)
        optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=3e-3)
        for _ in range(200):
            optimizer.zero_grad()
            functional.cross_entropy(head(body(flat.x[low])), flat.y[low]).backward()
            optimizer.step()
    return body


@cache
def high_digits() -> Split:
    """The digits 5 to 9."""
    flat = digits()
    high, high_val = flat.y >= 5, flat.y_val >= 5
    return Split(flat.x[high], flat.y[high] - 5, flat.x_val[high_val], flat.y_val[high_val] - 5)


def _new_head() -> nn.Sequential:
    body = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU())
    body.load_state_dict(_low_digits_body().state_dict())
    return nn.Sequential(body, nn.Linear(32, 5))


# -- a simulator


@cache
def poles() -> Split:
    """First states of a pole on a cart, and the uniform numbers that choose between the policy's two actions."""

    def episodes(count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        start = 0.2 * torch.rand(count, 4, generator=generator) - 0.1
        return torch.cat((start, torch.rand(count, POLE_STEPS, generator=generator)), 1)

    x, x_val = episodes(4000, 1), episodes(500, 2)
    return Split(x, torch.zeros(len(x)), x_val, torch.zeros(len(x_val)))


class PolePolicy(nn.Module):
    """Pushes a cart to the left or to the right, so that the pole on it stays upright."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities of the actions taken and costs, shape (batch, 2, step)."""
        state, chance = x[:, :4], x[:, 4:]
        taken, costs = [], []
        for step in range(POLE_STEPS):
            logit = self.policy(state)[:, 0]
            right = (chance[:, step] < torch.sigmoid(logit.detach())).to(x.dtype)
            taken.append(-functional.binary_cross_entropy_with_logits(logit, right, reduction="none"))
            place, speed, angle, spin = state.unbind(1)
            force = 10 * (2 * right - 1)
            push = (force + 0.05 * spin**2 * torch.sin(angle)) / 1.1
            turn = (9.8 * torch.sin(angle) - torch.cos(angle) * push) / (
                0.5 * (4 / 3 - 0.1 * torch.cos(angle) ** 2 / 1.1)
            )
            slide = push - 0.05 * turn * torch.cos(angle) / 1.1
            tau = 0.04
            state = torch.stack((place + tau * speed, speed + tau * slide, angle + tau * spin, spin + tau * turn), 1)
            state = state.clamp(-10, 10)
            costs.append(state[:, 2].abs().clamp(max=1.0))
        return torch.stack((torch.stack(taken, 1), torch.stack(costs, 1)), 1)


def policy_gradient(episodes: Tensor, _: Tensor) -> Tensor:
    """The mean cost, with the gradient of REINFORCE: costs to come, less their mean over the batch."""
    taken, costs = episodes.unbind(1)
    to_come = costs.flip(1).cumsum(1).flip(1).detach()
    surrogate = (taken * (to_come - to_come.mean(0))).mean()
    return surrogate - surrogate.detach() + costs.detach().mean()


FIELD_TASKS = {
    task.name: task
    for task in (
        Task("patches_denoise", "field choose", noisy_patches, Denoiser, functional.mse_loss, 16),
        Task("patches_upscale", "field report", small_patches, _upscaler, functional.l1_loss, 32),
        Task("patches_resnet", "field choose", quarters, SmallResNet, functional.cross_entropy, 32),
        Task("series_cnn", "field report", carbon_dioxide, _series_cnn, functional.mse_loss, 16),
        Task("series_gru", "field choose", carbon_dioxide, SeriesGRU, functional.smooth_l1_loss, 32, clip=0.5),
        Task("series_postln", "field report", sea_temperature, SeriesTransformer, functional.mse_loss, 64),
        Task("words_postln", "field choose", words, WordTransformer, next_word_loss, 8, accumulate=2),
        Task("ratings_embedding", "field report", ratings, Recommender, functional.mse_loss, 512),
        Task(
            "digits_triplet",
            "field choose",
            triplets,
            lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8)),
            triplet_loss,
            32,
        ),
        Task("digits_vae", "field report", digits_themselves, DigitVAE, negative_elbo, 128),
        Task(
            "digits_rare_wrong",
            "field choose",
            rare_and_wrong,
            lambda: nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)),
            functional.cross_entropy,
            8,
        ),
        Task("digits_new_head", "field report", high_digits, _new_head, functional.cross_entropy, 16, scaler=True),
        Task("pole_policy", "field choose", poles, PolePolicy, policy_gradient, 32),
    )
}
