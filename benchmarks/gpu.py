"""What clipping costs on a CUDA device, beside the least it could cost.

    python benchmarks/gpu.py                        # 10M, 100M and 1B parameters, as many as fit
    python benchmarks/gpu.py --parameters 10000000

Times one optimizer step, gradients given, with CUDA events: a bare fused AdamW (the floor), the same behind
``GradNormClipper`` with and without anything to clip, and behind ``torch.nn.utils.clip_grad_norm_``. The bytes bound is
one read of the gradients at the bandwidth that a copy on this device reaches: no norm can be had for less.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from statistics import median
from typing import Any

import ignite
import torch
from ignite.engine import Engine
from torch import nn

from ignite_lr import GradNormClipper

ROUNDS, WARM_UP = 30, 10
SIZES = (10_000_000, 100_000_000, 1_000_000_000)
# parameters, gradients and two moments in float32
BYTES_EACH = 16
TENSORS = 150


def milliseconds(step: Callable[[], Any], clipper: GradNormClipper | None = None) -> float:
    """The median time of a step on the device, as a trainer makes it; what the trainer does around it is left out."""
    marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def timed(engine: Engine, batch: int) -> None:
        marks.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
        marks[-1][0].record()
        step()
        marks[-1][1].record()

    trainer = Engine(timed)
    with nullcontext() if clipper is None else clipper.attach(trainer):
        trainer.run(range(WARM_UP + ROUNDS), max_epochs=1)
    torch.cuda.synchronize()
    return median(begin.elapsed_time(end) for begin, end in marks[WARM_UP:])


def bandwidth() -> float:
    """Bytes a millisecond that a copy reads and writes on this device."""
    source = torch.empty(1 << 28, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / milliseconds(lambda: target.copy_(source))


def parameters(count: int) -> list[nn.Parameter]:
    """So many parameters in the number of tensors that a network of this kind has, with gradients."""
    made = []
    for index in range(TENSORS):
        size = count // TENSORS + (index < count % TENSORS)
        made.append(nn.Parameter(torch.randn(size, device="cuda") * 0.01))
        made[-1].grad = torch.randn(size, device="cuda") * 0.01
    return made


def measure(count: int) -> dict[str, float]:
    """Milliseconds of each kind of step."""
    held = parameters(count)
    optimizer = torch.optim.AdamW(held, lr=1e-6, fused=True)

    def with_norm() -> None:
        torch.nn.utils.clip_grad_norm_(held, 1e9)
        optimizer.step()

    times = {"fused AdamW": milliseconds(optimizer.step), "behind clip_grad_norm_": milliseconds(with_norm)}
    for name, ceiling in (("nothing to clip", None), ("every step clipped", 1e-3)):
        clipper = GradNormClipper(optimizer, percentile=100.0, max_norm=ceiling)
        times[f"behind GradNormClipper, {name}"] = milliseconds(optimizer.step, clipper)
    return times


def main() -> None:
    """Measure what fits, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, nargs="*", default=SIZES)
    sizes = parser.parse_args().parameters
    if not torch.cuda.is_available():
        parser.exit(1, "benchmarks/gpu.py needs a CUDA device, and there is none: nothing was measured\n")
    name = torch.cuda.get_device_name()
    print(f"{date.today()}, {name}, torch {torch.__version__}, CUDA {torch.version.cuda}, ignite {ignite.__version__}")
    rate = bandwidth()
    print(f"a copy moves {rate / 1e6:.0f} GB/s\n")
    for count in sizes:
        free, _ = torch.cuda.mem_get_info()
        if count * BYTES_EACH * 1.1 > free:
            print(f"{count:,} parameters: left out, needs {count * BYTES_EACH / 2**30:.0f} GiB\n")
            continue
        times = measure(count)
        floor = times["fused AdamW"]
        bound = 4 * count / rate
        print(f"{count:,} parameters")
        for kind, time in times.items():
            print(f"  {kind:45s} {time:9.3f} ms  {time / floor:5.2f}x")
        print(f"  {'the bytes bound of the norm':45s} {bound:9.3f} ms  {1 + bound / floor:5.2f}x\n")
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
