"""The digits on several processes: range test, schedule, clipping and logging under DDP or FSDP.

    torchrun --nproc-per-node 2 examples/distributed.py             # DDP; on GPUs with NCCL, else on CPUs with gloo
    torchrun --nproc-per-node 2 examples/distributed.py --fsdp      # parameters, gradients and optimizer sharded
    python examples/distributed.py --processes 2                    # without torchrun

The handlers are used as on one process.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver, TensorboardLogger
from ignite.metrics import Accuracy
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.checkpoint import state_dict as whole
from torch.distributed.fsdp import fully_shard
from torch.utils.data import TensorDataset, random_split

from ignite_lr import GradNormClipper, LRLogger, LRSchedulerHandler, NoSuggestionError, ScheduleLR, find_lr, schedules


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/distributed"), help="folder for everything written")
    parser.add_argument("--processes", type=int, help="start so many; not with torchrun")
    parser.add_argument("--fsdp", action="store_true", help="shard the model instead of copying it (FSDP2)")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64, help="of all processes together")
    parser.add_argument("--sweep-points", type=int, default=200)
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    return parser.parse_args()


class Sharded:
    """Model and optimizer of all ranks as one checkpoint that any number of ranks can load."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def state_dict(self) -> dict[str, Any]:  # every rank has to call this: all of them give their shards
        gather = whole.StateDictOptions(full_state_dict=True, cpu_offload=True)
        model, optimizer = whole.get_state_dict(*self.parts, options=gather)
        return {"model": model, "optimizer": optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # every rank takes its shards
        scatter = whole.StateDictOptions(full_state_dict=True)
        states = {"model_state_dict": state["model"], "optim_state_dict": state["optimizer"]}
        whole.set_state_dict(*self.parts, **states, options=scatter)


def main(_: int, args: argparse.Namespace) -> None:
    training(args)
    gc.collect()  # DDP's model goes first, then idist.Parallel calls idist.finalize(): docs/reliability.md


def training(args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    device = idist.device()
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    train, valid = random_split(data, [1437, 360], torch.Generator().manual_seed(0))
    train_loader = idist.auto_dataloader(train, batch_size=args.batch_size, shuffle=True, drop_last=True)
    valid_loader = idist.auto_dataloader(valid, batch_size=512)

    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 10)).to(device)
    if args.fsdp:
        for part in (model[0], model[2], model[4], model):
            fully_shard(part)
    else:
        model = idist.auto_model(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    trainer = create_supervised_trainer(model, optimizer, nn.CrossEntropyLoss(), device=device)
    evaluator = create_supervised_evaluator(model, metrics={"accuracy": Accuracy()}, device=device)
    if idist.get_world_size() > 1:
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda e: train_loader.sampler.set_epoch(e.state.epoch))

    if args.resume is None:
        swept = {"model": model, "optimizer": optimizer}
        result = find_lr(trainer, train_loader, swept, num_iter=args.sweep_points, start_lr=1e-6, verify=20)
        try:
            result.apply(optimizer)
        except NoSuggestionError as reason:
            print(f"rank {idist.get_rank()} goes on with lr 1e-3: {reason}")

    scheduler = ScheduleLR(optimizer, schedules.InverseSqrt(warmup_steps=20, warmup_start=0.01))
    schedule_handler = LRSchedulerHandler(scheduler)
    schedule_handler.attach(trainer)
    clipper = GradNormClipper(optimizer)  # the norm is that of the whole gradient, sharded or not
    clipper.attach(trainer)
    if idist.get_rank() == 0:
        logger = TensorboardLogger(args.output)
        logger.attach(trainer, LRLogger(optimizer, clipper=clipper), Events.ITERATION_COMPLETED(every=5))
        trainer.add_event_handler(Events.COMPLETED, logger.close)

    to_save = {"trainer": trainer, "training": Sharded(model, optimizer)}
    to_save |= {"scheduler": scheduler, "schedule_handler": schedule_handler, "clipper": clipper}
    checkpoint = Checkpoint(to_save, DiskSaver(args.output, require_empty=False), n_saved=None)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, checkpoint)
    if args.resume is not None:
        Checkpoint.load_objects(to_save, torch.load(args.resume, map_location="cpu", weights_only=True))

    trainer.run(train_loader, max_epochs=args.epochs)
    accuracy, report = evaluator.run(valid_loader).metrics["accuracy"], clipper.report()
    said = f"accuracy {accuracy:.4f}, lr {scheduler.get_last_lr()[0]:.6g}, clipped {report.clipped}/{report.updates}"
    print(f"rank {idist.get_rank()}: {said}")


if __name__ == "__main__":
    args = options()
    with idist.Parallel("nccl" if torch.cuda.is_available() else "gloo", args.processes) as parallel:
        parallel.run(main, args)
