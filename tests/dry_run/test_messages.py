"""What a range test says when it cannot do what it was asked to, and that nothing is touched then."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader
from trainings import Training, check_same, net, pairs, sweep, training_of

from ignite_lr import LRFinder, NoSuggestionError


def failure_of(action: Callable[[], Any]) -> str:
    """What an action that has to fail says; the class of the error comes first."""
    with pytest.raises((AttributeError, KeyError, TypeError, ValueError, RuntimeError), match=r".") as caught:
        action()
    return f"{type(caught.value).__name__}: {caught.value}"


def failure_of_sweep(training: Training, **options: Any) -> str:
    """What a sweep says that has to fail and leaves all as it was."""
    before = training.picture()
    said = failure_of(lambda: sweep(training, **options))
    check_same(before, training.picture())
    return said


def test_an_optimizer_without_a_learning_rate() -> None:
    class NoRate(torch.optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {"alpha": 100.0})

        def step(self, closure: Any = None) -> None:
            pass

    training = training_of(net(), NoRate(net().parameters()))
    said = failure_of(lambda: LRFinder().attach(training.trainer, training.to_save, num_iter=10, start_lr=1e-5))
    assert said.startswith("TypeError: Object to_save['optimizer'] should be an optimizer with a learning rate")
    assert "group 0 of this NoRate has no 'lr'" in said


class Delegating(torch.optim.Optimizer):
    """A wrapper that never calls Optimizer.__init__, as many Lookahead classes and launchers have it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.param_groups = optimizer.param_groups
        self.state = optimizer.state

    def step(self, closure: Any = None) -> None:
        self.optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


def test_a_wrapper_that_never_was_initialised_as_an_optimizer() -> None:
    model = net()
    training = training_of(model, Delegating(torch.optim.SGD(model.parameters(), lr=0.05)))
    before = training.picture()
    said = failure_of(lambda: LRFinder().attach(training.trainer, training.to_save, num_iter=10, start_lr=1e-5))
    assert said.startswith("TypeError: ")
    assert "Delegating, whose __init__ does not call" in said
    assert "optimizer.optimizer, of class SGD" in said
    check_same(before, training.picture())


@pytest.mark.parametrize("at", [1, 10])
def test_a_group_that_the_step_adds(at: int) -> None:
    model = net()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.05)

    def unfreeze(engine: Engine) -> None:
        if engine.state.iteration == at:
            optimizer.add_param_group({"params": list(model[2].parameters())})

    said = failure_of_sweep(training_of(model, optimizer, first=unfreeze))
    assert re.search("changed the parameter groups of the optimizer: there were 1, now there are 2", said)
    assert len(optimizer.param_groups) == 1


class TwoSteps(torch.optim.Optimizer):
    """Sharpness-aware descent with first_step and second_step, as its reference implementation has them."""

    def __init__(self, params: Any, base: Any, **options: Any) -> None:
        super().__init__(params, {"rho": 0.05, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups
        self.moved: dict[Any, torch.Tensor] = {}

    @torch.no_grad()
    def first_step(self) -> None:
        for p in self.param_groups[0]["params"]:
            self.moved[p] = p.detach().clone()
            p.add_(p.grad, alpha=0.05)

    @torch.no_grad()
    def second_step(self) -> None:
        for p in self.param_groups[0]["params"]:
            p.copy_(self.moved[p])
        self.base_optimizer.step()

    def step(self, closure: Any = None) -> None:
        raise NotImplementedError("needs two passes")


def test_an_optimizer_with_two_steps() -> None:
    model = net()
    optimizer = TwoSteps(model.parameters(), torch.optim.SGD, lr=0.05)

    def step(engine: Engine, batch: Any) -> float:
        for half in (optimizer.first_step, optimizer.second_step):
            optimizer.zero_grad()
            loss = mse_loss(model(batch[0]), batch[1])
            loss.backward()
            half()
        return loss.item()

    training = Training(Engine(step), {"model": model, "optimizer": optimizer}, DataLoader(pairs(), 8))
    said = failure_of_sweep(training)
    assert "never calls the step() of this TwoSteps, but that of SGD, its base_optimizer: give" in said


def test_steps_that_nobody_sees() -> None:
    model = net()
    training = training_of(model)
    training.trainer._process_function = lambda engine, batch: 1.0
    said = failure_of_sweep(training)
    assert "first_step() and second_step(), and a step in an event handler, are none" in said


def test_the_block_was_forgotten() -> None:
    training = training_of(net())
    block = LRFinder().attach(training.trainer, training.to_save, num_iter=10, start_lr=1e-5)
    assert "with ....attach(...) as engine:" in failure_of(lambda: block.run(training.data))
    assert not hasattr(block, "_repr_html_")


def test_a_loss_that_is_nan_at_once() -> None:
    """The fourth batch holds a NaN: the reason is to send the user to the data, not to a lower start_lr."""
    data = [(x, y) for x, y in DataLoader(pairs(), 8)]
    data[3] = (data[3][0] * float("nan"), data[3][1])
    finder, _ = sweep(training_of(net(), data=data))
    with pytest.raises(NoSuggestionError, match=r"not finite.*\b(data|batch)"):
        finder.result.suggestion()


@pytest.mark.parametrize("loss", [torch.tensor(1j), torch.tensor([1j]), np.array(1j), 1j, np.complex128(1j)], ids=repr)
def test_a_complex_loss(loss: Any) -> None:
    training = training_of(net())
    optimizer = training.to_save["optimizer"]
    training.trainer._process_function = lambda engine, batch: (optimizer.step(), loss)[1]
    said = failure_of_sweep(training)
    assert re.match(r"TypeError: output of the engine .*complex.*output_transform", said, re.DOTALL)


def test_losses_near_the_largest_float() -> None:
    training = training_of(net())
    optimizer = training.to_save["optimizer"]

    def step(engine: Engine, batch: Any) -> float:
        if engine.state.iteration % 3 == 0:
            optimizer.step()
        return 1.7e308

    training.trainer._process_function = step
    finder, _ = sweep(training, num_iter=4)
    assert finder.result.losses == pytest.approx([1.7e308] * 4)


def test_what_is_warned_about_points_at_the_users_line() -> None:
    training = training_of(net(), data=iter([(x, y) for x, y in DataLoader(pairs(), 8)]))
    with (
        LRFinder().attach(training.trainer, training.to_save, num_iter=3, start_lr=1e-5) as engine,
        pytest.warns(UserWarning, match="one-shot iterator|without loss diverging") as caught,
    ):
        engine.run(training.data)
    assert {warning.filename for warning in caught} == {__file__}
    assert len(caught) == 2
