"""Trajectories that the other libraries produced, reproduced: which of their arguments are which of ours."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events

from ignite_lr import LRSchedulerHandler, ScheduleLR
from ignite_lr.schedules import (
    Clamp,
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    InverseSqrt,
    Join,
    Linear,
    MultiStep,
    OneCycle,
    PiecewiseLinear,
    Polynomial,
    Scale,
    Schedule,
    Shift,
    Step,
    Tanh,
    TriStage,
    WarmupStableDecay,
    with_warmup,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "schedules.json").read_text(encoding="utf-8"))
# timm's warmup-stable-decay with a stable phase that falls, and with an exponential decay
UNUSUAL = {"o061", "o062"}

Arguments = dict[str, Any]
# the base rate and the schedule for the peer's arguments, its base rate, and the number of updates asked for
Mapping = Callable[[Arguments, float, int], tuple[float, Schedule]]


# --- fairseq ---------------------------------------------------------------------------------------------------------


def fairseq_cosine(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    warmup, mult = a.get("warmup_updates", 0), a.get("t_mult", 1.0)
    start = a.get("warmup_init_lr", -1.0)
    warm = {"warmup_steps": warmup, "warmup_start": (start if start >= 0 else a["min_lr"]) / lr}
    period = a.get("lr_period_updates", -1)
    if period <= 0:
        return lr, Cosine(a["max_update"], final_factor=a["min_lr"] / lr, **warm)
    lengths = [float(period)]
    while warmup + sum(lengths) < n:
        lengths.append(lengths[-1] * mult)
    return lr, CosineRestarts(
        warmup + sum(lengths),
        num_cycles=len(lengths),
        cycle_mult=mult,
        cycle_decay=a.get("lr_shrink", 0.1),
        final_factor=a["min_lr"] / lr,
        **warm,
    )


def fairseq_fixed(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    warmup = max(a["warmup_updates"], 1)  # it is at its peak one update earlier, and begins one part above zero
    return lr, Constant(warmup_steps=warmup - 1, warmup_start=1 / warmup)


def fairseq_inverse_sqrt(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    return lr, InverseSqrt(a["warmup_updates"], warmup_start=max(a["warmup_init_lr"], 0.0) / lr)


def peak_once(warmup: int, final: float, start: float = 0.0) -> Schedule:
    return Join([Constant(warmup_steps=warmup, warmup_start=start), Constant(final)], [warmup + 1])


def fairseq_polynomial(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    end = a["end_learning_rate"] / lr
    if a["warmup_updates"] == a["total_num_update"]:  # it uses the peak once more, which ours does not reach then
        return lr, peak_once(a["warmup_updates"], end)
    return lr, Polynomial(a["total_num_update"], power=a["power"], final_factor=end, warmup_steps=a["warmup_updates"])


def fairseq_step(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    floor = a["min_lr"] / lr
    warm = {"warmup_steps": a["warmup_updates"], "warmup_start": floor}
    return lr, Clamp(Step(a["lr_deacy_period"], gamma=a["lr_decay"], **warm), lower=floor)


def fairseq_tri_stage(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    if "phase_ratio" in a:
        phases = [int(a["max_update"] * ratio) for ratio in a["phase_ratio"]]
    else:
        phases = [a["warmup_steps"], a["hold_steps"], a["decay_steps"]]
    warmup, hold, decay = phases
    start, final = a.get("init_lr_scale", 0.01), a.get("final_lr_scale", 0.01)
    return lr, TriStage(warmup, hold_steps=hold, decay_steps=decay, warmup_start=start, final_factor=final)


def fairseq_triangular(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    half = a["lr_period_updates"] // 2
    points = []
    for cycle in range(n // (2 * half) + 1):
        peak = a["max_lr"] / lr * a["lr_shrink"] ** cycle
        points += [(2 * half * cycle, 1.0), (2 * half * cycle + half, peak)]
    return lr, PiecewiseLinear(points)


# --- Ignite ----------------------------------------------------------------------------------------------------------


def ignite_cosine(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    cycles = n // a["cycle_size"] + 1
    return a["start_value"], CosineRestarts(
        cycles * a["cycle_size"], num_cycles=cycles, final_factor=a["end_value"] / a["start_value"]
    )


def ignite_linear_cyclical(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    half = a["cycle_size"] / 2
    ends = (1.0, a["end_value"] / a["start_value"])
    return a["start_value"], PiecewiseLinear([(half * i, ends[i % 2]) for i in range(int(n / half) + 2)])


def ignite_piecewise(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    return lr, PiecewiseLinear([(update, value / lr) for update, value in a["milestones_values"]])


def ignite_warmup_step(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    # its warmup shares its last update with the first one of the scheduler
    warmup = a["warmup_duration"] - 1
    return lr, with_warmup(Step(a["step_size"], gamma=a["gamma"]), warmup, a["warmup_start_value"] / lr)


# --- optax -----------------------------------------------------------------------------------------------------------


def begin(schedule: Schedule, a: Arguments) -> Schedule:
    return Shift(schedule, -a.get("transition_begin", 0))


def optax_constant(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    return a["value"], Constant()


def optax_cosine(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    return a["init_value"], Cosine(a["decay_steps"], final_factor=a.get("alpha", 0.0), exponent=a.get("exponent", 1.0))


def optax_cosine_onecycle(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    div, final_div = a.get("div_factor", 25.0), a.get("final_div_factor", 1e4)
    total = a["transition_steps"]
    peak = int(a.get("pct_start", 0.3) * total)
    rise = Scale(Cosine(peak, final_factor=div), 1 / div)
    return a["peak_value"], Join([rise, Cosine(total - peak, final_factor=1 / (div * final_div))], [peak])


def optax_linear_onecycle(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    div, final_div = a.get("div_factor", 25.0), a.get("final_div_factor", 1e4)
    total = a["transition_steps"]
    peak, back = int(a.get("pct_start", 0.3) * total), int(a.get("pct_final", 0.85) * total)
    points = [(0, 1 / div), (peak, 1.0), (back, 1 / div), (total, 1 / (div * final_div))]
    return a["peak_value"], PiecewiseLinear(points)


def optax_exponential(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    if a.get("staircase"):
        decay: Schedule = Step(a["transition_steps"], gamma=a["decay_rate"])
    else:
        decay = Exponential(a["decay_rate"] ** (1 / a["transition_steps"]))
    return a["init_value"], begin(Clamp(decay, lower=a.get("end_value", 0.0) / a["init_value"]), a)


def optax_join(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    final = a["end_value"] / a["peak_value"]
    return a["peak_value"], WarmupStableDecay(
        a["warmup"], stable_steps=a["stable"], decay_steps=a["decay"], final_factor=final
    )


def optax_polynomial(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    init, end, steps = a["init_value"], a["end_value"], a["transition_steps"]
    if steps <= 0:
        return init, Constant()
    if init == 0.0:  # no base rate that a factor could multiply
        assert a.get("power", 1.0) == 1.0
        return end, begin(PiecewiseLinear([(0, 0.0), (steps, 1.0)]), a)
    return init, begin(Polynomial(steps, power=a.get("power", 1.0), final_factor=end / init), a)


def optax_piecewise_constant(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    jumps = sorted((int(boundary), scale) for boundary, scale in a.get("boundaries_and_scales", {}).items())
    levels = [1.0]
    for _, scale in jumps:
        levels.append(levels[-1] * scale)
    return a["init_value"], Join([Constant(level) for level in levels], [boundary for boundary, _ in jumps])


def optax_piecewise_interpolate(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    jumps = sorted((int(boundary), scale) for boundary, scale in a["boundaries_and_scales"].items())
    points = [(0, 1.0)]
    for boundary, scale in jumps:
        points.append((boundary, points[-1][1] * scale))
    if a["interpolate_type"] == "linear":
        return a["init_value"], PiecewiseLinear(points)
    waves = [Scale(Cosine(end - start, final_factor=high / low), low) for (start, low), (end, high) in pairwise(points)]
    return a["init_value"], Join(waves, [update for update, _ in points[1:-1]])


def optax_warmup_cosine(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    peak = a["peak_value"]
    return peak, Cosine(
        a["decay_steps"],
        final_factor=a.get("end_value", 0.0) / peak,
        exponent=a.get("exponent", 1.0),
        warmup_steps=a["warmup_steps"],
        warmup_start=a["init_value"] / peak,
    )


def optax_sgdr(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    parts, boundaries, at = [], [], 0
    for cycle in a["cosine_kwargs"]:
        peak, part = optax_warmup_cosine(cycle, lr, n)
        parts.append(Scale(part, peak / lr))
        at += cycle["decay_steps"]
        boundaries.append(at)
    return lr, Join(parts, boundaries[:-1])


def optax_warmup_constant(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    peak = a["peak_value"]
    return peak, Constant(warmup_steps=a["warmup_steps"], warmup_start=a["init_value"] / peak)


def optax_warmup_exponential(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    peak = a["peak_value"]
    decay = Clamp(Exponential(a["decay_rate"] ** (1 / a["transition_steps"])), lower=a.get("end_value", 0.0) / peak)
    return peak, with_warmup(decay, a["warmup_steps"], a["init_value"] / peak)


# --- timm ------------------------------------------------------------------------------------------------------------


def timm(a: Arguments, lr: float, main: Schedule, prefix: bool = False, meet: bool = False) -> tuple[float, Schedule]:
    """Its warmup takes the place of the first updates, unless it is a prefix, which for some is the default."""
    warmup, start = a.get("warmup_t", 0), a.get("warmup_lr_init", 0.0) / lr
    if warmup == 0:
        return lr, main
    if a.get("warmup_prefix", prefix):
        peak, rest = 1.0, main
    else:
        peak, rest = main(warmup) if meet else 1.0, Shift(main, warmup)
    return lr, Join([PiecewiseLinear([(0, start), (warmup, peak)]), rest], [warmup])


def timm_cosine(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    cycles, mult = a.get("cycle_limit", 1), a.get("cycle_mul", 1.0)
    low = a.get("lr_min", 0.0) / lr
    if cycles == 1:
        return timm(a, lr, Cosine(a["t_initial"], final_factor=low, k_decay=a.get("k_decay", 1.0)))
    assert low == 0.0, "its lowest rate does not sink with its cycles"
    total = math.fsum(a["t_initial"] * mult**i for i in range(cycles))
    decay = a.get("cycle_decay", 1.0)
    return timm(a, lr, CosineRestarts(total, num_cycles=cycles, cycle_mult=mult, cycle_decay=decay))


def timm_multi_step(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    # its drops come one update early
    return timm(a, lr, Shift(MultiStep(a["decay_t"], gamma=a["decay_rate"]), 1), prefix=True)


def timm_poly(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    return timm(a, lr, Polynomial(a["t_initial"], power=a["power"], final_factor=a.get("lr_min", 0.0) / lr))


def timm_step(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    return timm(a, lr, Step(a["decay_t"], gamma=a["decay_rate"]), prefix=True)


def timm_tanh(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    main: Schedule = Tanh(
        a["t_initial"], lower=a.get("lb", -7.0), upper=a.get("ub", 3.0), final_factor=a.get("lr_min", 0.0) / lr
    )
    if a.get("warmup_t", 0) == 0:
        # nothing sets the first rate, so that it is the optimizer's own
        main = Join([Constant(), Shift(main, 1)], [1])
    return timm(a, lr, main, meet=True)


def timm_wsd(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    return lr, WarmupStableDecay(
        a["warmup_t"],
        stable_steps=a["t_initial"] - a["decay_t"],
        decay_steps=a["decay_t"],
        decay=a.get("decay_fn", "sqrt"),
        final_factor=a.get("lr_min", 0.0) / lr,
        warmup_start=a.get("warmup_lr_init", 0.0) / lr,
    )


# --- PyTorch ---------------------------------------------------------------------------------------------------------


def torch_constant(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    return lr, Join([Constant(a["factor"]), Constant()], [a["total_iters"]])


def torch_cosine(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    return lr, Cosine(a["T_max"], final_factor=a["eta_min"] / lr)


def torch_restarts(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    lengths = [a["T_0"]]
    while sum(lengths) < n:
        lengths.append(lengths[-1] * a["T_mult"])
    return lr, CosineRestarts(
        sum(lengths), num_cycles=len(lengths), cycle_mult=a["T_mult"], final_factor=a["eta_min"] / lr
    )


def torch_cyclic(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    assert a["mode"] == "triangular"
    ends = (a["base_lr"] / lr, a["max_lr"] / lr)
    half = a["step_size_up"]
    return lr, PiecewiseLinear([(half * i, ends[i % 2]) for i in range(n // half + 2)])


def torch_linear(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    return lr, PiecewiseLinear([(0, a["start_factor"]), (a["total_iters"], a["end_factor"])])


def torch_one_cycle(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    return a["max_lr"], OneCycle(
        a["total_steps"],
        pct_start=a["pct_start"],
        div_factor=a.get("div_factor", 25.0),
        final_div_factor=a.get("final_div_factor", 1e4),
        anneal={"cos": "cosine", "linear": "linear"}[a["anneal_strategy"]],
        three_phase=a["three_phase"],
    )


def torch_sequential(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    (warmup,) = a["milestones"]
    assert warmup == a["total_iters"]
    return lr, Cosine(warmup + a["T_max"], warmup_steps=warmup, warmup_start=a["start_factor"])


# --- torchtitan ------------------------------------------------------------------------------------------------------


def torchtitan_wsd(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    total, warmup = a["training_steps"], a["warmup_steps"]
    decay = total - warmup if a["decay_ratio"] is None else round(total * a["decay_ratio"])
    stable = total + 1 - warmup - decay
    low = a["min_lr_factor"]
    # it counts updates from 1
    return lr, Shift(
        WarmupStableDecay(warmup, stable_steps=stable, decay_steps=decay, decay=a["decay_type"], final_factor=low), 1
    )


# --- Transformers ----------------------------------------------------------------------------------------------------


def options(a: Arguments) -> tuple[int, int, Arguments]:
    return a["num_warmup_steps"] or 0, a["num_training_steps"], a["scheduler_specific_kwargs"]


def low_rate(k: Arguments, lr: float) -> float:
    return k["min_lr"] / lr if "min_lr" in k else k.get("min_lr_rate", 0.0)


def hf_constant(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    return lr, Constant(warmup_steps=options(a)[0])


def hf_linear(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    warmup, total, _ = options(a)
    return lr, Linear(total, warmup_steps=warmup)


def hf_cosine(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    warmup, total, k = options(a)
    return lr, Cosine(total, final_factor=low_rate(k, lr), num_cycles=k.get("num_cycles", 0.5), warmup_steps=warmup)


def hf_cosine_warmup_min(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    warmup, total, k = options(a)
    low, cycles = low_rate(k, lr), k.get("num_cycles", 0.5)
    if warmup == 0:
        return lr, Shift(Cosine(total, final_factor=low, num_cycles=cycles), 1)
    start = k.get("warmup_lr_rate", 1 / warmup)
    # it counts updates from 1
    if warmup == total:
        return lr, peak_once(warmup - 1, low, start)
    return lr, Cosine(total - 1, final_factor=low, num_cycles=cycles, warmup_steps=warmup - 1, warmup_start=start)


def hf_restarts(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    warmup, total, k = options(a)
    return lr, CosineRestarts(total, num_cycles=k.get("num_cycles", 1), warmup_steps=warmup)


def hf_inverse_sqrt(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    warmup, _, k = options(a)
    return lr, InverseSqrt(warmup, timescale=k.get("timescale") or warmup or 10_000)


def hf_polynomial(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    warmup, total, k = options(a)
    return lr, Polynomial(total, power=k["power"], final_factor=k["lr_end"] / lr, warmup_steps=warmup)


def hf_wsd(a: Arguments, lr: float, n: int) -> tuple[float, Schedule]:
    warmup, total, k = options(a)
    decay = k["num_decay_steps"]
    stable = k["num_stable_steps"] if total is None else total - warmup - decay
    names = {"linear": "linear", "cosine": "cosine", "1-sqrt": "sqrt"}
    low = k.get("min_lr_ratio", 0.0)
    return lr, WarmupStableDecay(
        warmup,
        stable_steps=stable,
        decay_steps=decay,
        decay=names[k["decay_type"]],
        final_factor=low,
        warmup_start=low,
        warmup=names[k.get("warmup_type", "linear")],
    )


TABLE: dict[tuple[str, str], Mapping] = {
    ("fairseq", "cosine"): fairseq_cosine,
    ("fairseq", "fixed"): fairseq_fixed,
    ("fairseq", "inverse_sqrt"): fairseq_inverse_sqrt,
    ("fairseq", "polynomial_decay"): fairseq_polynomial,
    ("fairseq", "step"): fairseq_step,
    ("fairseq", "tri_stage"): fairseq_tri_stage,
    ("fairseq", "triangular"): fairseq_triangular,
    ("ignite", "CosineAnnealingScheduler"): ignite_cosine,
    ("ignite", "LinearCyclicalScheduler"): ignite_linear_cyclical,
    ("ignite", "PiecewiseLinear"): ignite_piecewise,
    ("ignite", "create_lr_scheduler_with_warmup[StepLR]"): ignite_warmup_step,
    ("optax", "constant_schedule"): optax_constant,
    ("optax", "cosine_decay_schedule"): optax_cosine,
    ("optax", "cosine_onecycle_schedule"): optax_cosine_onecycle,
    ("optax", "linear_onecycle_schedule"): optax_linear_onecycle,
    ("optax", "exponential_decay"): optax_exponential,
    ("optax", "join_schedules[linear,constant,linear]"): optax_join,
    ("optax", "linear_schedule"): optax_polynomial,
    ("optax", "polynomial_schedule"): optax_polynomial,
    ("optax", "piecewise_constant_schedule"): optax_piecewise_constant,
    ("optax", "piecewise_interpolate_schedule"): optax_piecewise_interpolate,
    ("optax", "sgdr_schedule"): optax_sgdr,
    ("optax", "warmup_constant_schedule"): optax_warmup_constant,
    ("optax", "warmup_cosine_decay_schedule"): optax_warmup_cosine,
    ("optax", "warmup_exponential_decay_schedule"): optax_warmup_exponential,
    ("timm", "CosineLRScheduler"): timm_cosine,
    ("timm", "MultiStepLRScheduler"): timm_multi_step,
    ("timm", "PolyLRScheduler"): timm_poly,
    ("timm", "StepLRScheduler"): timm_step,
    ("timm", "TanhLRScheduler"): timm_tanh,
    ("timm", "WSDLRScheduler"): timm_wsd,
    ("torch", "ConstantLR"): torch_constant,
    ("torch", "CosineAnnealingLR"): torch_cosine,
    ("torch", "CosineAnnealingWarmRestarts"): torch_restarts,
    ("torch", "CyclicLR"): torch_cyclic,
    ("torch", "ExponentialLR"): lambda a, lr, n: (lr, Exponential(a["gamma"])),
    ("torch", "LinearLR"): torch_linear,
    ("torch", "MultiStepLR"): lambda a, lr, n: (lr, MultiStep(a["milestones"], gamma=a["gamma"])),
    ("torch", "OneCycleLR"): torch_one_cycle,
    ("torch", "PolynomialLR"): lambda a, lr, n: (lr, Polynomial(a["total_iters"], power=a["power"])),
    ("torch", "SequentialLR[LinearLR,CosineAnnealingLR]"): torch_sequential,
    ("torch", "StepLR"): lambda a, lr, n: (lr, Step(a["step_size"], gamma=a["gamma"])),
    ("torchtitan", "linear_warmup_stable_decay"): torchtitan_wsd,
    ("transformers", "constant"): hf_constant,
    ("transformers", "constant_with_warmup"): hf_constant,
    ("transformers", "linear"): hf_linear,
    ("transformers", "cosine"): hf_cosine,
    ("transformers", "cosine_with_min_lr"): hf_cosine,
    ("transformers", "cosine_warmup_with_min_lr"): hf_cosine_warmup_min,
    ("transformers", "cosine_with_restarts"): hf_restarts,
    ("transformers", "inverse_sqrt"): hf_inverse_sqrt,
    ("transformers", "polynomial"): hf_polynomial,
    ("transformers", "warmup_stable_decay"): hf_wsd,
}
DRIVEN_BY_METRICS = {"reduce_lr_on_plateau", "greedy"}


def cases(by_metrics: bool) -> list[Any]:
    return [
        pytest.param(case, id=f"{case['id']}-{case['peer']}-{case['schedule']}")
        for case in GOLDEN
        if (case["schedule"] in DRIVEN_BY_METRICS) is by_metrics and case["id"] not in UNUSUAL
    ]


def one_parameter(lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def assert_close(rates: list[float], case: dict[str, Any]) -> None:
    defined = case["defined_len"]
    expected = case["lrs"][:defined]
    assert rates[:defined] == pytest.approx(expected, rel=0, abs=1e-9 * max(expected))


@pytest.mark.filterwarnings("ignore:schedule must return factors")  # peaks of 0.04 to 0.1 of it are meant here
@pytest.mark.parametrize("case", cases(by_metrics=False))
def test_equal_to_the_peer(case: dict[str, Any]) -> None:
    base, schedule = TABLE[case["peer"], case["schedule"]](case["args"], case["base_lr"], case["defined_len"])
    optimizer = one_parameter(base)
    scheduler = ScheduleLR(optimizer, schedule)
    rates = []
    for _ in case["lrs"]:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert_close(rates, case)


@pytest.mark.parametrize("case", cases(by_metrics=True))
def test_equal_to_the_peers_scheduler_under_the_handler(case: dict[str, Any]) -> None:
    optimizer = one_parameter(case["base_lr"])
    arguments = case["args"]["scheduler_specific_kwargs"]
    if case["schedule"] == "greedy":
        transformers = pytest.importorskip("transformers", reason="the scheduler itself is in Transformers 5")
        scheduler = transformers.get_scheduler("greedy", optimizer, scheduler_specific_kwargs=arguments)
    else:
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **arguments)
    rates: list[float] = []

    def step(engine: Engine, metric: float) -> float:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        return metric

    trainer = Engine(step)
    LRSchedulerHandler(scheduler, metric="loss").attach(trainer)

    @trainer.on(Events.ITERATION_COMPLETED)
    def measure(engine: Engine) -> None:
        engine.state.metrics["loss"] = engine.state.output

    trainer.run(case["args"]["metrics"], max_epochs=1)
    assert_close(rates, case)


def test_every_trajectory_is_accounted_for() -> None:
    assert len(cases(by_metrics=False)) + len(cases(by_metrics=True)) == len(GOLDEN) - len(UNUSUAL) == 118
