"""Saved states and files, changed at random: refused by name, with nothing changed, or taken, and then they work.

The states are those of a training of six updates. A change drops, repeats or replaces something anywhere in them; in
files also characters. 250 changes are part of ``make test``, the same each time; 8,000 of ``make test-long``.
"""

from __future__ import annotations

import copy
import json
import math
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import create_supervised_trainer

import ignite_lr
from ignite_lr import schedules


def nested(depth: int, inner: Any = None) -> Any:
    for _ in range(depth):
        inner = [inner]
    return inner


WRONG: list[Callable[[], Any]] = [
    lambda: None, lambda: True, lambda: False, lambda: 0, lambda: 1, lambda: -1, lambda: 0.5, lambda: -0.5,
    lambda: math.nan, lambda: math.inf, lambda: -math.inf, lambda: 1e308, lambda: 2**63, lambda: 10**30,
    lambda: 10**400, lambda: "", lambda: "a", lambda: "x" * 10_000, lambda: "nan", list, dict, lambda: [1],
    lambda: ["a"], lambda: {"a": 1}, lambda: nested(600), lambda: nested(100_000), lambda: [0.1] * 1000,
    lambda: torch.tensor(1.0), lambda: torch.ones(2), lambda: np.float64(0.5), lambda: np.ones(2), lambda: b"a", object,
]  # fmt: skip
PLAIN = [value for value in WRONG if value() is None or isinstance(value(), bool | int | float | str | list | dict)]


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in it."""
    if path:
        yield path
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield from places(tree[key], (*path, key))


def changed(rng: random.Random, tree: Any, values: list[Callable[[], Any]]) -> tuple[Any, str]:
    """A copy of it with a change, and what that is."""
    tree = copy.deepcopy(tree)
    # as often near the root as in a long list
    depth = rng.randint(1, 4)
    # what stands in the state of a scheduler of PyTorch is PyTorch's, which takes everything
    ours = [path for path in places(tree) if len(path) <= depth and (path[0] != "scheduler" or len(path) == 1)]
    *way, last = rng.choice(ours)
    home = tree
    for key in way:
        home = home[key]
    what = rng.choice(["drop", "repeat", "replace", "replace", "replace", "replace"])
    if what == "drop":
        del home[last]
    elif what == "repeat":
        home[last] = [home[last], home[last]]
    else:
        home[last] = value = rng.choice(values)()
        what = f"{type(value).__name__} {str(value)[:40]}" if not isinstance(value, list) else "a list"
    return tree, f"{[*way, last]}: {what}"


class Training:
    """Two groups and all handlers; the inner scheduler of a warmup is PyTorch's own."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        self.optimizer = torch.optim.SGD([{"params": m.parameters()} for m in self.model], lr=0.1, momentum=0.9)
        self.trainer = create_supervised_trainer(self.model, self.optimizer, torch.nn.functional.mse_loss)
        schedule = schedules.Cosine(40, final_factor=0.1, warmup_steps=3)
        scheduler = ignite_lr.ScheduleLR(self.optimizer, [schedule, schedules.Linear(50)])
        param = ignite_lr.ScheduleParam(self.optimizer, "weight_decay", schedules.Linear(50))
        clipper = ignite_lr.GradNormClipper(self.optimizer, window=4, per_group=True)
        self.parts: dict[str, Any] = {
            "ScheduleLR": scheduler,
            "ScheduleParam": param,
            "LRSchedulerHandler": ignite_lr.LRSchedulerHandler(scheduler, every=2),
            "GradNormClipper": clipper,
            "LRLogger": ignite_lr.LRLogger(self.optimizer, clipper=clipper, momentum=True, history=4),
        }
        for part in (
            clipper,
            self.parts["LRSchedulerHandler"],
            ignite_lr.LRSchedulerHandler(param),
            self.parts["LRLogger"],
        ):
            part.attach(self.trainer)

    def run(self) -> Training:
        self.trainer.run([(torch.ones(2, 2), torch.ones(2, 1))] * 6, max_epochs=self.trainer.state.epoch + 1)
        return self

    def rates(self) -> list[Any]:
        return [[group[key] for key in ("lr", "initial_lr", "weight_decay")] for group in self.optimizer.param_groups]


class Warmed(Training):
    """Likewise, with a scheduler of PyTorch behind a warmup."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(2, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.trainer = create_supervised_trainer(self.model, self.optimizer, torch.nn.functional.mse_loss)
        inner = torch.optim.lr_scheduler.StepLR(self.optimizer, 3, 0.5)
        self.parts = {"with_warmup": schedules.with_warmup(inner, 3)}
        ignite_lr.LRSchedulerHandler(self.parts["with_warmup"]).attach(self.trainer)

    def rates(self) -> list[Any]:
        return [[group["lr"], group["initial_lr"]] for group in self.optimizer.param_groups]


def wrong_with_state(kind: type[Training], name: str, state: Any, what: str) -> str:
    """What is wrong with how it is taken or refused, if anything is."""
    training = kind().run()
    part = training.parts[name]
    before = repr((part.state_dict(), training.rates()))
    try:
        part.load_state_dict(state)
    except (TypeError, ValueError) as error:
        text = str(error)
        if repr((part.state_dict(), training.rates())) != before:
            return f"{what}: changed though refused: {text}"
        named = any(word in text for word in ("state_dict", "saved state"))
        return "" if named and len(text) < 500 else f"{what}: {text[:600]}"
    except Exception as error:
        return f"{what}: {type(error).__name__}: {str(error)[:300]}"
    try:
        training.run()
        kind().parts[name].load_state_dict(part.state_dict())
    except Exception as error:
        if "float without overflow" in str(error):  # PyTorch's word on 1e308, which float32 does not hold
            return ""
        return f"{what}: taken, and then {type(error).__name__}: {str(error)[:300]}"
    # the weight decay, last, may be what one likes
    good = all(
        math.isfinite(rate) and (rate >= 0 or i > 1) for rates in training.rates() for i, rate in enumerate(rates)
    )
    return "" if good else f"{what}: taken, and the rates are {training.rates()}"


def wrong_with_file(load: Callable[[Path], Any], path: Path, what: str) -> str:
    """Likewise for a file."""
    try:
        result = load(path)
    except ValueError as error:
        text = str(error)
        return "" if path.name in text and len(text) < 500 else f"{what}: {text[:600]}"
    except Exception as error:
        return f"{what}: {type(error).__name__}: {str(error)[:300]}"
    try:
        repr(result)
        result.save(path)
        assert repr(load(path)) == repr(result)
        result.suggestion()
    except ignite_lr.NoSuggestionError:
        pass
    except Exception as error:
        return f"{what}: taken, and then {type(error).__name__}: {str(error)[:300]}"
    return ""


def garbled(rng: random.Random, text: str) -> tuple[str, str]:
    """The text of a file with a change."""
    at, end = sorted(rng.sample(range(len(text)), 2))
    ways: dict[str, Callable[[], str]] = {
        "cut off": lambda: text[:at],
        "a part gone": lambda: text[:at] + text[min(end, at + 20) :],
        "brackets": lambda: text[:at] + "[" * 600 + "]" * 600 + text[at:],
        "very deep": lambda: "[" * 100_000,
        "digits": lambda: text[:at] + "1" * 5000 + text[at:],
        "characters": lambda: text[:at] + chr(rng.randrange(0xD000)) + text[at + 1 :],
        "nothing": str,
    }
    what = rng.choice(list(ways))
    return ways[what](), f"{what} at {at}"


def found(folder: Path, seed: int, tries: int) -> list[str]:
    """What went wrong in so many tries."""
    rng = random.Random(seed)
    kinds = (Training, Warmed)
    states = {(kind, name): part.state_dict() for kind in kinds for name, part in kind().run().parts.items()}
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = create_supervised_trainer(model, optimizer, torch.nn.functional.mse_loss)
    arguments = (trainer, [(torch.ones(2, 2), torch.ones(2, 1))] * 4, {"model": model, "optimizer": optimizer})
    result = ignite_lr.find_lr(*arguments, num_iter=40, start_lr=1e-3, end_lr=1e4, verify=20, progress_bar=False)
    trials = [ignite_lr.Trial(0.01, schedules.Constant(warmup_steps=2)), ignite_lr.Trial(0.1)]
    study = ignite_lr.run_study(*arguments, trials, num_updates=12, progress_bar=False)
    files = {type(one): json.loads(one.save(folder / "saved.json").read_text()) for one in (result, study)}
    wrong = []
    for number in range(tries):
        place = folder / "mutated.json"
        if number % 3:
            (kind, name), state = rng.choice(list(states.items()))
            state, what = changed(rng, state, WRONG)
            wrong.append(wrong_with_state(kind, name, state, f"{name} {what}"))
            continue
        loaded, content = rng.choice(list(files.items()))
        if rng.random() < 0.6:
            try:
                content, what = changed(rng, content, PLAIN)
                text = json.dumps(content)
            except RecursionError:  # what cannot be written is in no file
                continue
        else:
            text, what = garbled(rng, json.dumps(content))
        place.write_text(text, encoding="utf-8", errors="surrogateescape")
        wrong.append(wrong_with_file(loaded.load, place, f"{loaded.__name__} {what}"))
    return [one for one in wrong if one]


def test_mutated_states(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # to be warned is to have been told
        assert not found(tmp_path, seed=0, tries=250)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(1, 5))
def test_8000_mutated_states(tmp_path: Path, seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not found(tmp_path, seed, tries=2_000)
