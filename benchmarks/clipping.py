"""Measure what clipping costs, beside ``clip_grad_norm_`` and the adaptive clippers of other packages.

    OMP_NUM_THREADS=1 python benchmarks/clipping.py            # about three minutes
    OMP_NUM_THREADS=1 python benchmarks/clipping.py --quick    # a first look

149 gradients with 10 million elements on the CPU, one update in ten clipped. All contestants work in turn on gradients
just written, in one run, and a figure is the ratio to the reference in that run: 0.9 of the time of an update that is
not clipped and 0.1 of one that is. Times are those that the one thread spent computing, medians over all rounds.
Contestants whose package is missing are left out: ``pip install autoclip zclip``.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from ignite.engine import Engine
from torch import nn
from torch.nn.utils import clip_grad_norm_, get_total_norm

from ignite_lr.clipper import GradNormClipper
from ignite_lr.core.updates import Updates

ELEMENTS = 10_000_000
TENSORS = 149
PERCENTILE = 90.0


class Nothing(torch.optim.Optimizer):
    """An optimizer that changes nothing: its step costs what its hooks cost."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Do nothing."""


def made_parameters(sizes: Sequence[int] | None = None) -> list[nn.Parameter]:
    """Tensors of these sizes, else of those of a convolutional network: many small ones, a few large."""
    if sizes is None:
        shares = np.random.default_rng(0).lognormal(0.0, 2.0, TENSORS)
        sizes = np.maximum((shares / shares.sum() * ELEMENTS).astype(int), 1)
        sizes[np.argmax(sizes)] += ELEMENTS - sum(sizes)
    parameters = [nn.Parameter(torch.randn(int(size))) for size in sizes]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-6)
    return parameters


def norms(count: int) -> torch.Tensor:
    """Norms as training has them; the benchmark's own updates are below or above the 90th percentile of these."""
    return torch.from_numpy(np.random.default_rng(1).uniform(0.5, 1.0, count).astype(np.float32))


@torch.no_grad()
def prepare(parameters: list[nn.Parameter], clipped: bool) -> None:
    """Leave gradients of a norm below or above the threshold, just written, as a backward pass leaves them."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for gradient in gradients:
        gradient.fill_(1e-6)
    gradients[0][0] = 0.98 if clipped else 0.7


def filled(optimizer: torch.optim.Optimizer, window: int | None, count: int, name: str = "") -> GradNormClipper:
    """A clipper that has seen ``count`` norms."""
    clipper = GradNormClipper(optimizer, percentile=PERCENTILE, window=window, name=name)
    state = clipper.state_dict()
    state.update(updates=count, clipped=count // 10, windows=[norms(count).tolist()], seen=[count])
    clipper.load_state_dict(state)
    return clipper


@dataclass
class Contestant:
    """Something that is done once an update, and how long it took."""

    name: str
    act: Callable[[], object]
    parameters: list[nn.Parameter]
    times: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})

    def time(self, clipped: bool) -> float:
        """Microseconds an update."""
        return 1e6 * statistics.median(self.times[clipped])

    def cost(self) -> float:
        """Microseconds an update, one in ten clipped."""
        return 0.9 * self.time(False) + 0.1 * self.time(True)


def measure(trainer: Engine, contestants: list[Contestant], rounds: int) -> None:
    """Let all of them act in turn, in a new order each round, inside an iteration of the trainer."""
    order = random.Random(0)

    def take_turns(engine: Engine, batch: int) -> None:
        for index in range(rounds):
            clipped = index % 4 == 0  # often enough for a median; weighted afterwards
            order.shuffle(contestants)
            for contestant in contestants:
                prepare(contestant.parameters, clipped)
                start = time.thread_time()
                contestant.act()
                seconds = time.thread_time() - start
                if index >= 8:
                    contestant.times[clipped].append(seconds)

    trainer._process_function = take_turns
    gc.disable()
    trainer.run([0])
    gc.enable()


def attached(name: str, optimizer: torch.optim.Optimizer, clipper: GradNormClipper, trainer: Engine) -> Contestant:
    """A step of an optimizer with a clipper, and what the clipper does when the iteration is completed."""
    clipper.attach(trainer)
    updates = Updates.of(trainer, optimizer)

    def act() -> None:
        optimizer.step()
        clipper._publish(updates)

    return Contestant(name, act, optimizer.param_groups[0]["params"])


def handlers(rounds: int) -> None:
    """The cost of clipping alone."""
    parameters = made_parameters()
    model = nn.Module()
    model.parameters = lambda recurse=True: iter(parameters)  # type: ignore[method-assign,assignment] # for ZClip
    nothing = Nothing(parameters)
    contestants = [
        Contestant("an empty step", nothing.step, parameters),
        Contestant(
            "clip_grad_norm_(foreach=True)", lambda: clip_grad_norm_(parameters, 0.95, foreach=True), parameters
        ),
    ]
    trainer = Engine(lambda engine, batch: None)
    for name, window, count in (
        ("GradNormClipper, window 1,000", 1_000, 1_000),
        ("GradNormClipper, window 1,000,000", 1_000_000, 1_000_000),
        ("GradNormClipper, all of 1,000,000", None, 1_000_000),
    ):
        optimizer = Nothing(parameters)
        contestants.append(attached(name, optimizer, filled(optimizer, window, count, name), trainer))
    history = norms(1_000_000).tolist()

    def autoclip(length: int) -> Callable[[], object]:
        own = history[:length]

        def act() -> None:
            norm = sum(float(p.grad.norm(2)) ** 2 for p in parameters if p.grad is not None) ** 0.5
            own.append(norm)
            clip_grad_norm_(parameters, float(np.percentile(own, PERCENTILE)))

        return act

    contestants.append(Contestant("AutoClip (as published), history 100", autoclip(100), parameters))
    contestants.append(Contestant("AutoClip (as published), history 1,000,000", autoclip(1_000_000), parameters))
    try:
        from zclip import ZClip

        zclip = ZClip(mode="zscore", warmup_steps=10, max_grad_norm=None)
        contestants.append(Contestant("ZClip 1.0", lambda: zclip.step(model), parameters))
    except ImportError:
        print("ZClip is not installed")
    try:
        from autoclip.torch import QuantileClip

        quantile = QuantileClip(parameters, quantile=PERCENTILE / 100, history_length=1000, global_threshold=True)
        quantile.state["global_history"] = norms(1_000)
        contestants.append(Contestant("autoclip 0.2 QuantileClip, 1,000", quantile.step, parameters))
    except ImportError:
        print("autoclip is not installed")

    measure(trainer, contestants, rounds)
    without_the_step(contestants)
    table("clipping alone", contestants, "clip_grad_norm_(foreach=True)")
    by_name = {contestant.name: contestant.cost() for contestant in contestants}
    ratio = by_name["GradNormClipper, window 1,000,000"] / by_name["GradNormClipper, window 1,000"]
    print(f"window of 1,000,000 against 1,000: {ratio:.3f}\n")


def fused_steps(rounds: int) -> None:
    """The cost of a whole fused AdamW step with clipping."""
    optimizers = {}
    for name in ("bare step", "norm and step", "clip_grad_norm_ and step", "GradNormClipper"):
        parameters = made_parameters()
        optimizers[name] = torch.optim.AdamW(parameters, lr=1e-5, fused=True), parameters
    bare, _ = optimizers["bare step"]
    other, theirs = optimizers["clip_grad_norm_ and step"]
    floor, measured = optimizers["norm and step"]
    ours, _ = optimizers["GradNormClipper"]

    def norm_and_step() -> None:
        get_total_norm([parameter.grad for parameter in measured if parameter.grad is not None])
        floor.step()

    def clip_and_step() -> None:
        clip_grad_norm_(theirs, 0.95, foreach=True)
        other.step()

    trainer = Engine(lambda engine, batch: None)
    contestants = [
        Contestant("fused AdamW", bare.step, optimizers["bare step"][1]),
        Contestant("get_total_norm and fused AdamW, the floor", norm_and_step, measured),
        Contestant("fused AdamW after clip_grad_norm_", clip_and_step, theirs),
        attached("fused AdamW with GradNormClipper", ours, filled(ours, 1_000, 1_000), trainer),
    ]

    measure(trainer, contestants, rounds)
    table("a whole step", contestants, "fused AdamW")
    by_name = {contestant.name: contestant.cost() for contestant in contestants}
    ratio = by_name["fused AdamW with GradNormClipper"] / by_name["get_total_norm and fused AdamW, the floor"]
    print(f"fused AdamW with GradNormClipper against the floor: {ratio:.3f}\n")


def small_tensors(rounds: int) -> None:
    """The cost of clipping 50 tensors of 64 x 64, where calls cost more than sums."""
    sizes = [64 * 64] * 50
    parameters, mine = made_parameters(sizes), made_parameters(sizes)
    empty, reference = Nothing(parameters), "clip_grad_norm_(foreach=True)"
    optimizer = Nothing(mine)
    trainer = Engine(lambda engine, batch: None)
    contestants = [
        Contestant("an empty step", empty.step, parameters),
        Contestant(reference, lambda: clip_grad_norm_(parameters, 0.95, foreach=True), parameters),
        attached("GradNormClipper", optimizer, filled(optimizer, 1_000, 1_000), trainer),
    ]
    measure(trainer, contestants, 4 * rounds)
    without_the_step(contestants)
    table("50 tensors of 64 x 64", contestants, reference)


def without_the_step(contestants: list[Contestant]) -> None:
    """A handler is what it adds to a step: take the empty one off, and out of the list."""
    empty = next(contestant for contestant in contestants if contestant.name == "an empty step")
    for contestant in contestants:
        if contestant.name.startswith("GradNormClipper"):
            for kind, times in contestant.times.items():
                without = statistics.median(empty.times[kind])
                contestant.times[kind] = [seconds - without for seconds in times]
    contestants.remove(empty)


def table(title: str, contestants: list[Contestant], reference: str) -> None:
    """Print costs and their ratios to the reference."""
    unit = next(contestant.cost() for contestant in contestants if contestant.name == reference)
    print(f"\n{title:<46}{'us an update':>14}{'ratio':>8}{'  not clipped, clipped':>24}")
    for contestant in sorted(contestants, key=Contestant.cost):
        cost = contestant.cost()
        usual, clipped = contestant.time(False), contestant.time(True)
        print(f"{contestant.name:<46}{cost:>14.0f}{cost / unit:>8.2f}{usual:>14.0f}{clipped:>10.0f}")
    print()


def main() -> None:
    """Run from the command line."""
    torch.set_num_threads(1)  # so that the time of one thread is all of it
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    rounds = 60 if parser.parse_args().quick else 400
    torch.manual_seed(0)
    handlers(rounds)
    fused_steps(rounds)
    small_tensors(rounds)


if __name__ == "__main__":
    main()
