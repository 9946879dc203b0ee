"""Fine-tune a network whose parts want different rates.

    python examples/finetune.py                 # some seconds on a CPU

A network learns the digits 0 to 4, then all ten. The old layers keep a tenth of the rate of the new head: the range
test sweeps both with that ratio, the old layers get a longer warmup, and each group is clipped by its own norms.
"""

from __future__ import annotations

import argparse

import torch
from ignite.engine import Engine, create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Accuracy
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ignite_lr import GradNormClipper, LRFinder, LRLogger, LRSchedulerHandler, NoSuggestionError, ScheduleLR, schedules


def loaders(x: Tensor, y: Tensor, batch_size: int) -> tuple[DataLoader, DataLoader]:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    valid, train = order[: len(x) // 5], order[len(x) // 5 :]
    return (
        DataLoader(TensorDataset(x[train], y[train]), batch_size, shuffle=True),
        DataLoader(TensorDataset(x[valid], y[valid]), 512),
    )


def accuracy(model: nn.Module, loader: DataLoader) -> float:
    evaluator = create_supervised_evaluator(model, metrics={"accuracy": Accuracy()})
    return evaluator.run(loader).metrics["accuracy"]


def pretrained(x: Tensor, y: Tensor, args: argparse.Namespace) -> nn.Module:
    """A convolutional body that knows the digits 0 to 4."""
    body = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(),
    )  # fmt: skip
    model = nn.Sequential(body, nn.Linear(32 * 4 * 4, 5))
    train, valid = loaders(x[y < 5], y[y < 5], args.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    create_supervised_trainer(model, optimizer, nn.functional.cross_entropy).run(train, max_epochs=args.epochs)
    print(f"pre-trained         {accuracy(model, valid):.2%} on the digits 0 to 4")
    return body


def main(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    pixels, digits = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(digits)
    body = pretrained(x, y, args)
    head = nn.Linear(32 * 4 * 4, 10)
    model = nn.Sequential(body, head)
    train, valid = loaders(x, y, args.batch_size)

    optimizer = torch.optim.AdamW(
        [
            {"params": body.parameters(), "lr": 1e-4, "name": "body"},
            {"params": head.parameters(), "lr": 1e-3, "name": "head"},
        ]
    )
    trainer: Engine = create_supervised_trainer(model, optimizer, nn.functional.cross_entropy)

    finder = LRFinder()
    to_save = {"model": model, "optimizer": optimizer}
    with finder.attach(
        trainer, to_save, num_iter=args.sweep_points, start_lr=1e-6, end_lr=10.0, ratios="keep"
    ) as sweep:
        sweep.run(train)
    try:
        finder.result.apply(optimizer)
    except NoSuggestionError as reason:
        print(f"no suggestion, going on with the rates as they are: {reason}")
    for group in optimizer.param_groups:
        print(f"rate of the {group['name']:<8}{group['lr']:.3g}")

    updates = args.epochs * len(train)
    old_layers = schedules.Cosine(total_steps=updates, warmup_steps=updates // 4)
    new_head = schedules.Cosine(total_steps=updates, warmup_steps=updates // 20)
    scheduler = ScheduleLR(optimizer, [old_layers, new_head])
    clipper = GradNormClipper(optimizer, percentile=90.0, per_group=True)
    rates = LRLogger(optimizer, clipper=clipper, history=updates)
    for handler in (LRSchedulerHandler(scheduler), clipper, rates):
        handler.attach(trainer)
    trainer.run(train, max_epochs=args.epochs)

    history = rates.history()
    for name in ("body", "head"):
        print(f"largest of the {name:<5}{history[f'lr/AdamW/{name}'].max():.3g}")
    print(f"fine-tuned          {accuracy(model, valid):.2%} on all digits\n{clipper.report()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--sweep-points", type=int, default=200, help="updates of the range test")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
