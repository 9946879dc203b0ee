"""What users rely on, one training small enough to be worked out by hand for each promise."""

from __future__ import annotations

import math
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from ignite_lr import GradNormClipper, LRLogger


def sgd(lr: float = 1.0, groups: int = 1, **options: Any) -> torch.optim.SGD:
    """An SGD with one float64 weight a group."""
    several = [{"params": [nn.Parameter(torch.zeros(1, dtype=torch.float64))]} for _ in range(groups)]
    return torch.optim.SGD(several, lr=lr, **options)


def update(optimizer: torch.optim.Optimizer) -> None:
    """One update with gradient 1 from weight 0."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.data.zero_()
            weight.grad = torch.ones_like(weight)
    optimizer.step()


def trainer_with(
    optimizer: torch.optim.Optimizer, norms: Iterable[float | None], seen: list[Any] | None = None
) -> tuple[Engine, list[float | None]]:
    """A trainer whose gradient of update i has the norm ``norms[i]``, or is None; notes what the update got."""

    def step(engine: Engine, batch: float | None) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.grad = None if batch is None else torch.full_like(weight, batch)
        optimizer.step()
        if seen is not None:
            weight = optimizer.param_groups[0]["params"][0]
            seen.append(None if weight.grad is None else weight.grad.clone())

    return Engine(step), list(norms)


def clipped_run(
    norms: Iterable[float | None], dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[GradNormClipper, list[Any]]:
    """The clipper after updates with gradients of these norms, and the gradient that each update got."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1, dtype=dtype))], lr=0.0)
    clipper = GradNormClipper(optimizer, **options)
    seen: list[Any] = []
    trainer, batches = trainer_with(optimizer, norms, seen)
    clipper.attach(trainer)
    trainer.run(batches)
    return clipper, seen


def warnings_of(act: Callable[[], Any]) -> tuple[Any, list[Any]]:
    """What ``act`` returned, and the warnings it caused, whoever caused them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = act()
    return result, [one for one in caught if issubclass(one.category, UserWarning)]


# ---- what is not counted as clipped keeps every bit


@pytest.mark.parametrize("norms", [[1e-6], [3e-5, 2e-5, 1e-5], [0.5, 1.0]], ids=str)
def test_an_update_below_the_threshold_keeps_every_bit(norms: list[float]) -> None:
    """``percentile=100, max_norm=1.0`` in place of clip_grad_norm_(..., 1.0), with small gradients."""
    clipper, seen = clipped_run(norms, percentile=100.0, max_norm=1.0)
    assert clipper.report().clipped == 0
    assert all(torch.equal(gradient, torch.tensor([norm])) for gradient, norm in zip(seen, norms, strict=True))


def test_a_fused_update_below_the_threshold_is_the_plain_one() -> None:
    weights = []
    for clips in (True, False):
        weight = nn.Parameter(torch.ones(3))
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, fused=True)
        trainer, batches = trainer_with(optimizer, [2e-5, 1e-5, 3e-6])
        if clips:
            clipper = GradNormClipper(optimizer, percentile=100.0, max_norm=1.0)
            clipper.attach(trainer)
        trainer.run(batches)
        weights.append((weight.detach().clone(), optimizer.state[weight]["momentum_buffer"].clone()))
    assert clipper.report().clipped == 0
    assert torch.equal(weights[0][0], weights[1][0])
    assert torch.equal(weights[0][1], weights[1][1])


# ---- zeros


def test_many_zero_norms_do_not_make_the_threshold_zero() -> None:
    """A hinge loss, whose gradient is exactly 0 in 19 of 20 batches: the norms that are not zero are all alike."""
    norms = ([0.0] * 19 + [1.0]) * 10
    clipper, seen = clipped_run(norms, percentile=90.0, window=100)
    report = clipper.report()
    assert [gradient.item() for gradient in seen] == norms
    assert (report.clipped, report.zero, report.threshold) == (0, 190, 1.0)
    assert "190 norms exactly zero" in str(report)


def test_zero_norms_do_not_count_for_a_low_percentile() -> None:
    norms = [0.0 if i % 5 == 4 else 1.0 + i / 100 for i in range(100)]
    clipper, seen = clipped_run(norms, percentile=10.0, window=None)
    nonzero = [norm for norm in norms if norm]
    assert clipper.report().threshold == pytest.approx(np.percentile(nonzero, 10), rel=1e-6)
    assert all(gradient.item() > 0 for gradient, norm in zip(seen, norms, strict=True) if norm)


# ---- advice


def test_the_advised_factor_comes_from_the_clipped_updates() -> None:
    """40% of the norms are far below the threshold, 15% are twice and 45% eight times as large."""
    norms = ([0.5] * 8 + [2.0] * 3 + [8.0] * 9) * 6
    (clipper, _), _ = warnings_of(lambda: clipped_run(norms, percentile=100.0, max_norm=1.0))
    report = clipper.report()
    assert report.frequency == pytest.approx(0.6)
    assert "the typical norm is 8 times the threshold, so try 1/8 of it" in report.advice


def test_the_advice_never_says_by_a_factor_of_one() -> None:
    norms = [1.001, 1.002, 0.9] * 30
    (clipper, _), caught = warnings_of(lambda: clipped_run(norms, percentile=100.0, max_norm=1.0))
    said = [str(one.message) for one in caught] + [clipper.report().advice]
    assert len(said) == 2
    assert clipper.report().frequency > 0.5
    assert not [text for text in said if re.search(r"1/1|\b1 times", text)]


def test_more_clipped_updates_than_nominal_are_never_called_fewer() -> None:
    norms = [*np.linspace(1, 3, 60).tolist(), *np.linspace(3, 0.5, 100).tolist()]
    (clipper, _), caught = warnings_of(lambda: clipped_run(norms, percentile=90.0))
    report = clipper.report()
    assert report.frequency > report.nominal_frequency
    assert "fewer" not in report.advice
    assert caught == []


def test_the_warning_names_the_clipper_and_points_at_the_users_line() -> None:
    optimizers = {"generator": sgd(), "critic": sgd()}

    def step(engine: Engine, batch: int) -> None:
        for optimizer in optimizers.values():
            update(optimizer)

    trainer = Engine(step)
    GradNormClipper(optimizers["generator"], percentile=100.0, name="generator").attach(trainer)
    critic = GradNormClipper(optimizers["critic"], percentile=100.0, max_norm=0.1, name="critic")
    critic.attach(trainer)
    _, caught = warnings_of(lambda: trainer.run([0] * 100))
    assert len(caught) == 1
    assert str(caught[0].message).startswith("GradNormClipper 'critic' on SGD: 100.0% of recent updates were clipped")
    assert caught[0].filename == __file__
    assert str(critic.report()).startswith("critic: ")


# ---- norms


def test_an_update_without_gradients_publishes_no_old_norm() -> None:
    """In every third iteration no loss reaches the optimizer's parameters, and it steps all the same."""
    optimizer = sgd(lr=0.0)
    trainer, batches = trainer_with(optimizer, [1.0, 2.0, None, 4.0, 5.0, None])
    clipper = GradNormClipper(optimizer, percentile=100.0)
    clipper.attach(trainer)
    logger = LRLogger(optimizer, clipper=clipper, history=10)
    logger.attach(trainer)
    published: list[float] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: published.append(float(trainer.state.metrics["grad_norm"]))
    )
    trainer.run(batches)
    assert published == [1.0, 2.0, 0.0, 4.0, 5.0, 0.0]
    assert np.nan_to_num(logger.history()["clip/grad_norm"]).tolist() == published
    assert (clipper.report().updates, clipper.report().zero) == (6, 0)


@pytest.mark.parametrize("norm", [1e100, 1e-60])
def test_a_float64_norm_outside_the_range_of_float32(norm: float) -> None:
    clipper, seen = clipped_run([norm], dtype=torch.float64, percentile=100.0, max_norm=norm / 2, on_nonfinite="raise")
    wanted = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    wanted.grad = torch.tensor([norm], dtype=torch.float64)
    nn.utils.clip_grad_norm_([wanted], norm / 2)
    assert torch.equal(seen[0], wanted.grad)
    report = clipper.report()
    assert (report.updates, report.clipped, report.nonfinite, report.zero) == (1, 1, 0, 0)
    assert report.norm_quantiles["max"] == norm


@pytest.mark.parametrize("size", [1e-5, 1e5])
def test_a_norm_of_a_high_order_leaves_no_range(size: float) -> None:
    """The tenth power of 1e-5 is no float32: its sum must not be 0, nor the gradient become it."""
    clipper, seen = clipped_run([size, size], norm_type=10)
    assert [float(gradient) for gradient in seen] == pytest.approx([size, size], rel=1e-6)
    report = clipper.report()
    assert (report.clipped, report.zero, report.nonfinite) == (0, 0, 0)
    assert report.threshold == pytest.approx(size, rel=1e-5)


def test_the_largest_element_is_a_norm_by_name() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    clipper = GradNormClipper(optimizer, norm_type="inf", max_norm=torch.tensor(2.0))

    def step(engine: Engine, batch: float) -> None:
        parameter.grad = torch.tensor([3.0, 4.0])
        optimizer.step()

    trainer = Engine(step)
    clipper.attach(trainer)
    trainer.run([0])
    assert float(trainer.state.metrics["grad_norm"]) == 4.0
    assert float(trainer.state.metrics["clip_threshold"]) == 2.0


def test_groups_publish_their_norms_and_thresholds_under_their_names() -> None:
    optimizer = sgd(lr=0.0, groups=3)
    optimizer.param_groups[0]["name"] = "backbone"
    weights = [group["params"][0] for group in optimizer.param_groups]

    def step(engine: Engine, batch: float) -> None:
        weights[0].grad, weights[1].grad = torch.full((1,), batch).double(), torch.full((1,), 10 * batch).double()
        optimizer.step()

    trainer = Engine(step)
    clipper = GradNormClipper(optimizer, percentile=0.0, per_group=True, name="all")
    clipper.attach(trainer)
    trainer.run([1.0, 2.0])
    metrics = {key: float(value) for key, value in trainer.state.metrics.items()}
    assert metrics["all_grad_norm"] == pytest.approx(math.hypot(2.0, 20.0))
    assert [metrics[f"all_grad_norm/{name}"] for name in ("backbone", "group_1", "group_2")] == [2.0, 20.0, 0.0]
    thresholds = [metrics[f"all_clip_threshold/{name}"] for name in ("backbone", "group_1", "group_2")]
    assert thresholds == [1.0, 10.0, math.inf]


# ---- plausible mistakes


@pytest.mark.parametrize("percentile", [0.9, 1.0])
def test_a_percentile_that_looks_like_a_fraction_warns(percentile: float) -> None:
    """``percentile=0.9`` as in torch.quantile, or ``GradNormClipper(optimizer, 1.0)`` as in clip_grad_norm_."""
    with pytest.warns(UserWarning, match=r"percentile=(0\.9|1\.0) .*write percentile=(90|100)") as caught:
        GradNormClipper(sgd(), percentile)
    assert caught[0].filename == __file__


# ---- optimizers of others


class Lookahead(torch.optim.Optimizer):
    """An optimizer around another one that, as many in the wild, never calls ``Optimizer.__init__``."""

    def __init__(self, base_optimizer: torch.optim.Optimizer) -> None:
        self.base_optimizer = base_optimizer
        self.param_groups = base_optimizer.param_groups
        self.defaults = base_optimizer.defaults
        self.state = defaultdict(dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.base_optimizer.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> Any:
        return self.base_optimizer.step(closure)


class Forwarding(Lookahead):
    """The same, but whoever wants to hook its steps gets to hook those of the inner optimizer."""

    def register_step_pre_hook(self, hook: Any) -> Any:
        return self.base_optimizer.register_step_pre_hook(hook)

    def register_step_post_hook(self, hook: Any) -> Any:
        return self.base_optimizer.register_step_post_hook(hook)


def test_an_optimizer_that_cannot_be_hooked_names_the_inner_one() -> None:
    optimizer = Lookahead(sgd())
    with pytest.raises(TypeError, match=r"base_optimizer, of class SGD"):
        GradNormClipper(optimizer).attach(Engine(lambda engine, batch: update(optimizer)))


@pytest.mark.parametrize("fused", [False, True])
def test_a_clipper_that_sees_no_update_says_so_once(fused: bool) -> None:
    """The update is made in a handler, as in Ignite's reinforcement learning examples."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, fused=fused)
    trainer = Engine(lambda engine, batch: None)
    clipper = GradNormClipper(optimizer)
    clipper.attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: update(optimizer))
    _, caught = warnings_of(lambda: trainer.run([0] * 350))
    assert clipper.report().updates == 0
    assert len(caught) == 1
    assert re.search("100 iterations .* nothing is clipped.*handler.*second_step.*graph", str(caught[0].message))
    assert caught[0].filename == __file__


@pytest.mark.parametrize("on_nonfinite", ["count", "skip"])
def test_an_optimizer_without_init_works_where_its_hooks_do(on_nonfinite: Any) -> None:
    optimizer = Forwarding(sgd())
    trainer, batches = trainer_with(optimizer, [1.0, 1.0, math.nan, 1.0])
    clipper = GradNormClipper(optimizer, on_nonfinite=on_nonfinite)
    clipper.attach(trainer)
    trainer.run(batches)
    assert clipper.report().updates + clipper.report().skipped == 4
    assert clipper.report().skipped == (on_nonfinite == "skip")


class Counting(torch.optim.SGD):
    """As schedule-free, Lion or LAMB of other packages: a step counts also where there are no gradients."""

    def step(self, closure: Any = None) -> Any:
        self.steps = getattr(self, "steps", 0) + 1
        self.param_groups[0]["k"] = self.steps
        if any(parameter.grad is None for parameter in self.param_groups[0]["params"]):
            raise RuntimeError("no gradients")
        return super().step(closure)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_skipped_step_is_not_taken(scaled: bool) -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = Counting([weight], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0, enabled=scaled)
    clipper = GradNormClipper(optimizer, on_nonfinite="skip")
    logger = LRLogger(optimizer, clipper=clipper, history=10)

    def step(engine: Engine, norm: float) -> None:
        weight.grad = torch.full((1,), norm)
        scaler.scale(torch.zeros(()))
        scaler.step(optimizer)
        scaler.update()

    trainer = Engine(step)
    clipper.attach(trainer)
    logger.attach(trainer)
    trainer.run([1.0, 2e38 * 1.5, 1.0] if scaled else [1.0, math.inf, 1.0, math.nan])
    report = clipper.report()
    wanted = (3, 0) if scaled else (2, 2)  # what the scaler finds is the scaler's business
    assert (report.updates, report.skipped) == wanted
    assert optimizer.steps == report.updates
    assert len(logger.history()["update"]) == report.updates
    assert weight.grad is not None


# ---- states


@pytest.mark.parametrize("reason", ["frozen", "nan"])
def test_a_state_with_an_empty_window_comes_back(reason: str) -> None:
    backbone, head = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [backbone]}, {"params": [head]}], lr=0.0)

    def step(engine: Engine, batch: int) -> None:
        head.grad = torch.full((1,), math.nan if reason == "nan" else 1.0)
        optimizer.step()

    trainer = Engine(step)
    clipper, fresh = (GradNormClipper(optimizer, per_group=reason == "frozen", name=name) for name in "ab")
    clipper.attach(trainer)
    trainer.run([0] * 3)
    fresh.load_state_dict(clipper.state_dict())
    ours, theirs = clipper.report(), fresh.report()
    assert (theirs.updates, theirs.clipped, theirs.nonfinite) == (ours.updates, ours.clipped, ours.nonfinite)
    fresh.attach(trainer)
    trainer.run([0] * 3)
    assert fresh.report().updates == 6


@pytest.fixture
def process_group() -> Iterator[None]:
    distributed = torch.distributed
    if distributed.is_initialized():
        yield
        return
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::UserWarning:torch.distributed")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("window", [15, None])
def test_a_distributed_checkpoint_brings_back_a_clipper(
    process_group: None, window: int | None, tmp_path: Path
) -> None:
    from torch.distributed import checkpoint

    norms = [1.0 + (i * 7 % 11) / 10 for i in range(30)]

    def train(clipper: GradNormClipper, norms: list[float]) -> None:
        trainer, batches = trainer_with(clipper.optimizer, norms)
        with clipper.attach(trainer):
            trainer.run(batches)

    clipper, fresh = (GradNormClipper(sgd(lr=0.0), percentile=80.0, window=window) for _ in range(2))
    train(clipper, norms[:20])
    checkpoint.save({"clipper": clipper.state_dict()}, checkpoint_id=tmp_path / "saved")
    state = {"clipper": fresh.state_dict()}
    checkpoint.load(state, checkpoint_id=tmp_path / "saved")
    fresh.load_state_dict(state["clipper"])
    for one in (clipper, fresh):
        train(one, norms[20:])
    assert fresh.report() == clipper.report()
    assert fresh.report().threshold == pytest.approx(np.percentile(norms[15 if window else 0 :], 80), rel=1e-6)


# ---- pictures


def test_a_plot_returns_its_axes_where_pyplot_finds_them() -> None:
    from matplotlib import pyplot
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    clipper, _ = clipped_run([1.0, 2.0, 1.5, 3.0])
    drawn = clipper.plot()
    assert isinstance(drawn, Axes)
    assert any(pyplot.figure(number) is drawn.figure for number in pyplot.get_fignums())
    pyplot.close("all")
    assert (clipper._repr_png_() or b"").startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []
    mine = Figure().add_subplot()
    assert clipper.plot(mine, title="norms") is mine
