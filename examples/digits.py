"""Train a small network on scikit-learn's handwritten digits, with every part of ignite_lr at work.

    python examples/digits.py                                   # writes runs/digits/
    python examples/digits.py --resume runs/digits/checkpoint_5.pt

A range test finds the rate and short trials confirm it, a warmup with inverse-square-root decay schedules it, gradients
are clipped at the 90th percentile of their norms, and the rates that were really applied go to TensorBoard.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from pathlib import Path

import torch
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver, ProgressBar, TensorboardLogger
from ignite.metrics import Accuracy, Loss
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ignite_lr import (
    GradNormClipper,
    LRLogger,
    LRSchedulerHandler,
    NoSuggestionError,
    ScheduleLR,
    find_lr,
    run_report,
    schedules,
)

FALLBACK_LR = 1e-3


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return int(text)


def percentile(text: str) -> float:
    if not 0 <= float(text) <= 100:
        raise argparse.ArgumentTypeError(f"must be between 0 and 100, got {text}")
    return float(text)


def device(text: str) -> str:
    try:
        found = torch.device(text).type
    except RuntimeError:
        found = "none"
    if found != "cpu" and not (found == "cuda" and torch.cuda.is_available()):
        raise argparse.ArgumentTypeError(f"must be cpu, or cuda where there is a GPU, got {text}")
    return text


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/digits"), help="folder for everything written")
    parser.add_argument("--epochs", type=positive, default=20)
    parser.add_argument("--batch-size", type=positive, default=64)
    parser.add_argument("--warmup", type=positive, default=40, help="updates of warmup")
    parser.add_argument(
        "--percentile", type=percentile, default=90.0, help="of the gradient norms, where clipping starts"
    )
    parser.add_argument("--sweep-points", type=positive, default=300, help="updates of the range test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=device, default="cpu")
    parser.add_argument("--amp", action="store_true", help="mixed precision, on a GPU")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    chosen = parser.parse_args()
    if chosen.amp and not chosen.device.startswith("cuda"):
        parser.error("--amp needs a GPU: add --device cuda")
    return chosen


def loaders(batch_size: int, device: str) -> tuple[DataLoader, DataLoader]:
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images / 16, labels, test_size=0.2, stratify=labels, random_state=0)
    x_train, x_valid, y_train, y_valid = split
    train = TensorDataset(torch.tensor(x_train, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(y_train))
    valid = TensorDataset(torch.tensor(x_valid, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(y_valid))
    pin = device.startswith("cuda")
    return DataLoader(train, batch_size, shuffle=True, pin_memory=pin), DataLoader(valid, 512, pin_memory=pin)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(32 * 4 * 4, 10),
    )


def main(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    checkpoint = None if args.resume is None else read_checkpoint(args.resume, args.device)
    args.output.mkdir(parents=True, exist_ok=True)
    train_loader, valid_loader = loaders(args.batch_size, args.device)

    # What a user has before ignite_lr comes in.
    model = network().to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=FALLBACK_LR, weight_decay=0.01)
    loss_fn = nn.CrossEntropyLoss()
    scaler = torch.amp.GradScaler("cuda") if args.amp else False
    trainer = create_supervised_trainer(
        model, optimizer, loss_fn, device=args.device, amp_mode="amp" if args.amp else None, scaler=scaler
    )
    evaluator = create_supervised_evaluator(
        model, metrics={"accuracy": Accuracy(), "loss": Loss(loss_fn)}, device=args.device
    )

    # Every epoch draws its batches and its dropout from a seed of its own, so that a resumed run repeats them.
    trainer.add_event_handler(
        Events.EPOCH_STARTED, lambda engine: torch.manual_seed(args.seed * 1_000_003 + engine.state.epoch)
    )

    tb_logger = TensorboardLogger(args.output)

    # 1. Find the rate, and try it. A resumed run has it in its checkpoint.
    suggestion = result = None
    if checkpoint is None:
        to_save = {"model": model, "optimizer": optimizer}
        result = find_lr(trainer, train_loader, to_save, num_iter=args.sweep_points, start_lr=1e-6, logger=tb_logger)
        for trial in result.verified:
            print(f"trained at {trial.lr:.3g}: {'learns' if trial.learns else 'learns less'}")
        result.plot(title="Range test on the digits").figure.savefig(args.output / "range_test.png", dpi=120)
        result.to_html(args.output / "range_test.html", title="Range test on the digits")
        try:
            result.apply(optimizer)
            suggestion = optimizer.param_groups[0]["lr"]
        except NoSuggestionError as reason:
            print(f"No suggestion, going on with {FALLBACK_LR:g}: {reason}")

    # 2. Schedule it, one step an optimizer update.
    schedule = schedules.InverseSqrt(warmup_steps=args.warmup, warmup_start=0.01)
    updates = args.epochs * len(train_loader)
    schedule.plot(updates).figure.savefig(args.output / "schedule.png", dpi=120)
    scheduler = ScheduleLR(optimizer, schedule)
    schedule_handler = LRSchedulerHandler(scheduler)
    schedule_handler.attach(trainer)

    # 3. Protect it.
    clipper = GradNormClipper(optimizer, percentile=args.percentile, window=100)
    clipper.attach(trainer)

    # 4. Record it.
    rates = LRLogger(optimizer, clipper=clipper, history=updates)
    tb_logger.attach(trainer, log_handler=rates, event_name=Events.ITERATION_COMPLETED)
    tb_logger.attach_output_handler(
        trainer, Events.ITERATION_COMPLETED(every=5), tag="training", output_transform=lambda loss: {"loss": loss}
    )
    tb_logger.attach_output_handler(
        evaluator,
        Events.COMPLETED,
        tag="validation",
        metric_names="all",
        global_step_transform=lambda *_: trainer.state.iteration,  # the x axis of the other curves
    )
    progress = ProgressBar(disable=not sys.stderr.isatty())
    progress.attach(trainer, output_transform=lambda loss: {"loss": loss})

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine: Engine) -> None:
        metrics = evaluator.run(valid_loader).metrics
        progress.log_message(
            f"epoch {engine.state.epoch:2d}: validation accuracy {metrics['accuracy']:.2%}, loss {metrics['loss']:.4f}"
        )

    to_save = {
        "trainer": trainer,
        "model": model,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "schedule_handler": schedule_handler,
        "clipper": clipper,
    }
    if args.amp:
        to_save["scaler"] = scaler
    save = Checkpoint(
        to_save,
        DiskSaver(args.output, create_dir=False, require_empty=False),
        filename_pattern="checkpoint_{global_step}.pt",
        global_step_transform=lambda engine, _: engine.state.epoch,
        n_saved=None,
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, save)
    if checkpoint is not None:
        Checkpoint.load_objects(to_load=to_save, checkpoint=checkpoint)

    trainer.run(train_loader, max_epochs=args.epochs)
    tb_logger.close()
    clipper.plot(title="Gradient norms on the digits").figure.savefig(args.output / "grad_norm.png", dpi=120)
    page = run_report(
        args.output / "run.html", range_test=result, logger=rates, clipper=clipper, title="A run on the digits"
    )

    accuracy = evaluator.state.metrics["accuracy"]
    report = clipper.report()
    found = (
        "resumed" if args.resume else f"{FALLBACK_LR:g} (no suggestion)" if suggestion is None else f"{suggestion:.3g}"
    )
    print(
        f"\nsuggested rate       {found}"
        f"\nvalidation accuracy  {accuracy:.2%}"
        f"\nclipped              {report.frequency:.1%} of {report.updates} updates"
        f" (nominal {report.nominal_frequency:.0%})"
        f"\nfiles                {args.output}/ (tensorboard --logdir {args.output})"
        f"\nthe whole run        {page}"
    )


def read_checkpoint(path: Path, device: str) -> dict:
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(f"--resume: {path} is not a checkpoint of this example") from error


if __name__ == "__main__":
    try:
        main(options())
    except (ValueError, TypeError, OSError) as error:
        sys.exit(f"digits.py: error: {error}")
