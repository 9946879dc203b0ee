"""Train a small GPT on the source text of Python's own standard library, character by character.

    python examples/char_lm.py
    python examples/char_lm.py --device cuda    # float16 with a gradient scaler

Gradients are accumulated over micro-batches, the forward pass runs in mixed precision, and the rate of a range test is
the peak of a warmup with inverse-square-root decay. All of it counts optimizer updates.
"""

from __future__ import annotations

import argparse
import inspect

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ignite_lr import GradNormClipper, LRFinder, LRLogger, LRSchedulerHandler, NoSuggestionError, ScheduleLR, schedules

FALLBACK_LR = 1e-3


class Block(nn.Module):
    """Causal attention and an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.attention = nn.MultiheadAttention(width, num_heads=4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norms[0](x)
        future = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device, dtype=x.dtype)
        x = x + self.attention(normed, normed, normed, attn_mask=future, need_weights=False)[0]
        return x + self.mlp(self.norms[1](x))


class CharGPT(nn.Module):
    """Predicts each next symbol."""

    def __init__(self, symbols: int, width: int, blocks: int, context: int) -> None:
        super().__init__()
        self.symbol = nn.Embedding(symbols, width)
        self.position = nn.Parameter(0.02 * torch.randn(context, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)), nn.LayerNorm(width))
        self.head = nn.Linear(width, symbols)

    def forward(self, codes: Tensor) -> Tensor:
        return self.head(self.blocks(self.symbol(codes) + self.position[: codes.shape[1]]))


def windows(text: str, context: int) -> tuple[TensorDataset, TensorDataset, str]:
    alphabet = "".join(sorted(set(text)))
    codes = torch.tensor([alphabet.index(symbol) for symbol in text])
    rows = codes[: len(codes) // (context + 1) * (context + 1)].view(-1, context + 1)
    valid, train = rows[torch.randperm(len(rows))].tensor_split([len(rows) // 10])
    return TensorDataset(train), TensorDataset(valid), alphabet


def main(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    text = "".join(inspect.getsource(module) for module in (argparse, inspect))
    train, valid, alphabet = windows(text, args.context)
    loader = DataLoader(train, args.batch_size, shuffle=True, drop_last=True)
    model = CharGPT(len(alphabet), args.width, args.blocks, args.context).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=FALLBACK_LR, betas=(0.9, 0.95))
    precision = torch.float16 if device.type == "cuda" else torch.bfloat16
    scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)

    def loss_of(rows: Tensor) -> Tensor:
        rows = rows.to(device)
        with torch.autocast(device.type, precision):
            logits = model(rows[:, :-1])
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())

    def step(engine: Engine, batch: list[Tensor]) -> Tensor:
        loss = loss_of(batch[0])
        scaler.scale(loss / args.accumulate).backward()
        if engine.state.iteration % args.accumulate == 0:
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        return loss.detach()

    trainer, finder = Engine(step), LRFinder()
    to_save = {"model": model, "optimizer": optimizer, "scaler": scaler}
    with finder.attach(trainer, to_save, num_iter=args.sweep_points, start_lr=1e-6, end_lr=10.0) as sweep:
        sweep.run(loader)
    try:
        print(f"range test          {finder.result.apply(optimizer):.3g}")
    except NoSuggestionError as reason:
        print(f"range test          {reason}; going on with {FALLBACK_LR:g}")

    scheduler = ScheduleLR(optimizer, schedules.InverseSqrt(warmup_steps=args.warmup, warmup_start=0.01))
    clipper, rates = GradNormClipper(optimizer, percentile=90.0), LRLogger(optimizer, history=10_000)
    for handler in (LRSchedulerHandler(scheduler), clipper, rates):
        handler.attach(trainer)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine: Engine) -> None:
        with torch.no_grad():
            loss = torch.stack([loss_of(rows) for (rows,) in DataLoader(valid, 64)]).mean()
        print(f"epoch {engine.state.epoch:2d}            validation loss {loss:.3f} nats per character")

    trainer.run(loader, max_epochs=args.epochs)
    print(f"updates             {scheduler.last_epoch}, with {trainer.state.iteration} batches")
    print(f"largest rate used   {rates.history()['lr/AdamW'].max():.3g}\n{clipper.report()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    numbers = {"epochs": 6, "batch-size": 16, "accumulate": 2, "warmup": 50, "sweep-points": 150, "seed": 0}
    for name, default in (numbers | {"width": 64, "blocks": 2, "context": 64}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    main(parser.parse_args())
