"""Train a small GAN on scikit-learn's digits: two optimizers on one trainer.

    python examples/gan.py                      # writes runs/gan/

The discriminator makes two updates an iteration, the generator one. Each has a schedule, a clipper and tags of its own,
and each schedule counts the updates of its own optimizer.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver, TensorboardLogger
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ignite_lr import GradNormClipper, LRLogger, LRSchedulerHandler, ScheduleLR, schedules

NOISE, DISCRIMINATOR_UPDATES = 16, 2


def network(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def main(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    pixels = torch.tensor(load_digits().data, dtype=torch.float32) / 8 - 1  # from -1 to 1
    loader = DataLoader(TensorDataset(pixels), args.batch_size, shuffle=True, drop_last=True)
    models = {
        "generator": nn.Sequential(network(NOISE, 128, 128, 64), nn.Tanh()).to(args.device),
        "discriminator": network(64, 128, 64, 1).to(args.device),
    }
    generator, discriminator = models.values()
    optimizers = {
        name: torch.optim.Adam(model.parameters(), lr=args.lr, betas=(0.5, 0.9)) for name, model in models.items()
    }

    def judged(images: Tensor, real: bool) -> Tensor:
        scores = discriminator(images)
        return nn.functional.binary_cross_entropy_with_logits(scores, torch.full_like(scores, 0.9 if real else 0.0))

    def step(engine: Engine, batch: list[Tensor]) -> dict[str, Tensor]:
        real = batch[0].to(args.device)

        def fake() -> Tensor:
            return generator(torch.randn(len(real), NOISE, device=args.device))

        for _ in range(DISCRIMINATOR_UPDATES):
            loss_d = judged(real, True) + judged(fake().detach(), False)
            optimizers["discriminator"].zero_grad()
            loss_d.backward()
            optimizers["discriminator"].step()
        loss_g = judged(fake(), True)
        optimizers["generator"].zero_grad()
        loss_g.backward()
        optimizers["generator"].step()
        return {"generator": loss_g.detach(), "discriminator": loss_d.detach()}

    trainer = Engine(step)
    to_save = {"trainer": trainer, **models}
    updates = args.epochs * len(loader)
    totals = {"generator": updates, "discriminator": DISCRIMINATOR_UPDATES * updates}
    clippers: dict[str, GradNormClipper] = {}
    schedulers: dict[str, ScheduleLR] = {}
    for name, optimizer in optimizers.items():
        schedule = schedules.Cosine(total_steps=totals[name], final_factor=0.1, warmup_steps=totals[name] // 10)
        schedulers[name] = ScheduleLR(optimizer, schedule)
        handler = LRSchedulerHandler(schedulers[name])
        handler.attach(trainer)
        clippers[name] = GradNormClipper(optimizer, percentile=90.0, warmup_updates=100, name=name)
        clippers[name].attach(trainer)
        to_save |= {
            f"{name}_optimizer": optimizer,
            f"{name}_scheduler": schedulers[name],
            f"{name}_schedule_handler": handler,
            f"{name}_clipper": clippers[name],
        }

    tb_logger = TensorboardLogger(args.output)
    rates = LRLogger(optimizers, clipper=list(clippers.values()))
    tb_logger.attach(trainer, log_handler=rates, event_name=Events.ITERATION_COMPLETED(every=10))
    tb_logger.attach_output_handler(
        trainer, Events.ITERATION_COMPLETED(every=10), tag="loss", output_transform=lambda losses: losses
    )
    trainer.add_event_handler(Events.COMPLETED, Checkpoint(to_save, DiskSaver(args.output, require_empty=False)))
    trainer.run(loader, max_epochs=args.epochs)
    tb_logger.close()

    with torch.no_grad():
        samples = generator(torch.randn(32, NOISE, device=args.device)).view(4, 8, 8, 8).cpu()
        samples = nn.functional.pad(samples, (1, 1, 1, 1), value=-1.0)
    figure = Figure(figsize=(6, 3))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.imshow(samples.permute(0, 2, 1, 3).reshape(40, 80).numpy(), cmap="gray_r")
    ax.set_axis_off()
    figure.savefig(args.output / "samples.png")
    for name, clipper in clippers.items():
        print(f"{name}: {schedulers[name].last_epoch} updates\n{clipper.report()}\n")
    print(f"files: {args.output}/ (tensorboard --logdir {args.output})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/gan"), help="folder for everything written")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    main(parser.parse_args())
