"""What Ignite's own tests ask of ``FastaiLRFinder``, asked of ``LRFinder``.

Written anew from the behaviour that those tests describe. Left out, with reasons:

- ``num_iter + 1`` iterations (``iteration - 1 == 50``): the original runs one too many; here it is ``num_iter``.
- the first linear rate after ``start_lr`` and the exponential first rate "between 0.01 and 0.16": the original records
  the next iteration's rate; here the first rate is ``start_lr`` exactly.
- ``TypeError`` for int rates: ints are rates.
- the sum of the losses over the ranks: the mean is recorded.
- going on after a loss that is not finite: the sweep stops.
- handlers of the finder in ``trainer._event_handlers`` inside the block: the sweep is an engine of its own, and the
  trainer has none of them.
- ``_log_lr_and_loss``, ``_history``, ``_lr_schedule`` set and called directly: private attributes; what they do is
  tested through the public interface.
- texts of messages that name ``FastaiLRFinder`` ("FastaiLRFinder got unexpected curve shape"): the default rule here
  has reasons of its own; the type, RuntimeError, is the same.
- exact suggestions on curves put into ``_history`` (0.1109 and so on): they pin the original's rule, which takes slopes
  over an index instead of over log lr; the rules are tested in ``test_suggestion.py``.
- the warning that ``skip_start`` hides the suggestion: the picture is widened so that the suggestion stays visible.
- "Matplotlib is missing" by emptying ``sys.path``: done here by hiding the module, wherever it lies.
- MNIST downloads: a synthetic task of the same kind takes their place.
"""

from __future__ import annotations

import copy
import itertools
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_trainer
from torch import nn
from torch.optim import SGD

from ignite_lr.lr_finder import LRFinder

pytestmark = pytest.mark.filterwarnings("ignore:Run completed without loss diverging")


class ThreeLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(10, 20)
        self.fc2 = nn.Linear(20, 10)
        self.fc3 = nn.Linear(10, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Identity(), nn.Linear(10, 10))


@pytest.fixture
def optimizer(model: nn.Module) -> SGD:
    return SGD(model.parameters(), lr=1e-4, momentum=0.0)


@pytest.fixture
def to_save(model: nn.Module, optimizer: SGD) -> dict[str, Any]:
    return {"model": model, "optimizer": optimizer}


@pytest.fixture
def trainer(model: nn.Module, optimizer: SGD) -> Engine:
    return create_supervised_trainer(model, optimizer, nn.MSELoss())


@pytest.fixture
def data() -> torch.Tensor:
    return torch.rand(100, 2, 10)


class Groups:
    """A trainer with three parameter groups."""

    def __init__(self) -> None:
        self.model = ThreeLayers()
        self.optimizer = SGD(
            [
                {"params": self.model.fc1.parameters(), "lr": 4e-1},
                {"params": self.model.fc2.parameters(), "lr": 3e-2},
                {"params": self.model.fc3.parameters(), "lr": 3e-3},
            ]
        )
        self.to_save = {"model": self.model, "optimizer": self.optimizer}
        self.trainer = create_supervised_trainer(self.model, self.optimizer, nn.MSELoss())


class Images:
    """A classifier of noisy prototypes, in place of MNIST."""

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.optimizer = SGD(self.model.parameters(), lr=1e-4, momentum=0.0)
        self.to_save = {"model": self.model, "optimizer": self.optimizer}
        self.trainer = create_supervised_trainer(self.model, self.optimizer, nn.CrossEntropyLoss())
        generator = torch.Generator().manual_seed(0)
        prototypes = torch.randn(10, 1, 8, 8, generator=generator)
        labels = torch.randint(10, (200, 64), generator=generator)
        self.data = [(prototypes[y] + torch.randn(64, 1, 8, 8, generator=generator), y) for y in labels]


def test_attach_incorrect_input_args(
    trainer: Engine, model: nn.Module, optimizer: SGD, to_save: dict[str, Any], data: torch.Tensor
) -> None:
    finder = LRFinder()
    with pytest.raises(TypeError, match=r"Argument to_save should be a mapping"), finder.attach(trainer, to_save=123):
        pass
    with (
        pytest.raises(TypeError, match=r"Object <class 'int'> should have `state_dict` method"),
        finder.attach(trainer, to_save={1: 2}),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"Mapping to_save should contain 'optimizer' key"),
        finder.attach(trainer, to_save={"model": model}),
    ):
        pass
    with (
        pytest.raises(TypeError, match=r"Object to_save\['optimizer'\] should be torch optimizer"),
        finder.attach(trainer, {"model": model, "optimizer": model}),
    ):
        pass
    for arguments, error, message in (
        ({"smooth_f": 234}, ValueError, r"smooth_f is outside the range \[0, 1\]"),
        ({"diverge_th": 0.0}, ValueError, r"diverge_th should be larger than 1"),
        ({"num_iter": 0.0}, TypeError, r"if provided, num_iter should be an integer"),
        ({"num_iter": 0}, ValueError, r"if provided, num_iter should be positive"),
        ({"step_mode": "abc"}, ValueError, r"step_mode should be 'exp' or 'linear'"),
        ({"start_lr": "a"}, TypeError, r"start_lr should be a float or list of floats"),
        ({"end_lr": "a"}, TypeError, r"end_lr should be a float or list of floats"),
        ({"start_lr": [0.1, 0.2]}, ValueError, r"Number of values of start_lr should be equal to optimizer values"),
        ({"end_lr": [0.1, 0.2]}, ValueError, r"Number of values of end_lr should be equal to optimizer values"),
    ):
        with pytest.raises(error, match=message), finder.attach(trainer, to_save=to_save, **arguments):
            pass

    with finder.attach(trainer, to_save) as sweep:
        sweep.run(data)
    with pytest.raises(ValueError, match=r"skip_start cannot be negative"):
        finder.plot(skip_start=-1)
    with pytest.raises(ValueError, match=r"skip_end cannot be negative"):
        finder.plot(skip_end=-1)


def test_attach_without_with(trainer: Engine, to_save: dict[str, Any]) -> None:
    finder = LRFinder()
    finder.attach(trainer, to_save=to_save)
    assert not any(trainer._event_handlers.values())
    with finder.attach(trainer, to_save=to_save):
        with pytest.raises(RuntimeError, match=r"learning rate finder didn't run yet so lr_suggestion can't be"):
            finder.lr_suggestion()
        with pytest.raises(RuntimeError, match=r"learning rate finder didn't run yet so results can't be plotted"):
            finder.plot()


def test_with_attach(trainer: Engine, to_save: dict[str, Any], data: torch.Tensor) -> None:
    finder = LRFinder()
    with finder.attach(trainer, to_save=to_save) as sweep:
        sweep.run(data)
    assert finder.get_results() is not None
    assert not any(trainer._event_handlers.values())


@pytest.mark.parametrize(("start", "end"), [(10.0, 1.0), (10.0, 10.0), ([10.0], [1.0])])
def test_wrong_values_start_lr_and_end_lr(trainer: Engine, to_save: dict[str, Any], start: Any, end: Any) -> None:
    with (
        pytest.raises(ValueError, match=r"start_lr must be less than end_lr"),
        LRFinder().attach(trainer, to_save=to_save, start_lr=start, end_lr=end),
    ):
        pass


def test_model_optimizer_reset(trainer: Engine, to_save: dict[str, Any], data: torch.Tensor) -> None:
    optimizer_before = copy.deepcopy(to_save["optimizer"].state_dict())
    model_before = copy.deepcopy(to_save["model"].state_dict())
    trainer_before = copy.deepcopy(trainer.state_dict())
    with (
        pytest.warns(UserWarning, match=r"Run completed without loss diverging"),
        LRFinder().attach(trainer, to_save=to_save, diverge_th=float("inf")) as sweep,
    ):
        sweep.run(data)
    assert optimizer_before == to_save["optimizer"].state_dict()
    for before, after in zip(model_before.values(), to_save["model"].state_dict().values(), strict=True):
        assert torch.equal(before, after)
    assert trainer_before == trainer.state_dict()


@pytest.mark.parametrize("step_mode", ["linear", "exp"])
def test_lr_policy(trainer: Engine, to_save: dict[str, Any], data: torch.Tensor, step_mode: str) -> None:
    finder = LRFinder()
    with finder.attach(trainer, to_save=to_save, step_mode=step_mode) as sweep:
        sweep.run(data)
    lr = finder.get_results()["lr"]
    assert all(before < after for before, after in itertools.pairwise(lr))


@pytest.mark.parametrize("step_mode", ["linear", "exp"])
def test_multiple_optimizers_groups(data: torch.Tensor, step_mode: str) -> None:
    training, finder = Groups(), LRFinder()
    with finder.attach(
        training.trainer,
        training.to_save,
        start_lr=[0.1, 0.1, 0.01],
        end_lr=[1.0, 10.0, 0.1],
        step_mode=step_mode,
    ) as sweep:
        sweep.run(data)
    groups = zip(*finder.get_results()["lr"], strict=True)
    assert all(before < after for lr in groups for before, after in itertools.pairwise(lr))


def assert_output_sizes(finder: LRFinder, trainer: Engine) -> None:
    results = finder.get_results()
    assert len(results["lr"]) == len(results["loss"]) == trainer.state.iteration


def test_num_iter_is_none(trainer: Engine, to_save: dict[str, Any], data: torch.Tensor) -> None:
    finder = LRFinder()
    with (  # noqa: PT031 - the sizes are asserted inside the block
        pytest.warns(UserWarning, match=r"Run completed without loss diverging"),
        finder.attach(trainer, to_save=to_save, diverge_th=float("inf")) as sweep,
    ):
        sweep.run(data)
        assert_output_sizes(finder, trainer)
        assert trainer.state.iteration == len(data)


@pytest.mark.parametrize("num_iter", [50, 150, 200, 1000])
def test_num_iter(trainer: Engine, to_save: dict[str, Any], data: torch.Tensor, num_iter: int) -> None:
    finder = LRFinder()
    # up to 1.0 and not 10.0, where a long sweep overflows and stops for that
    with finder.attach(trainer, to_save, num_iter=num_iter, end_lr=1.0, diverge_th=float("inf")) as sweep:
        with pytest.warns(UserWarning, match=r"Run completed without loss diverging"):
            sweep.run(data)
        assert_output_sizes(finder, trainer)
        assert sweep.state.iteration == trainer.state.iteration == num_iter


def test_detach_terminates(trainer: Engine, to_save: dict[str, Any], data: torch.Tensor) -> None:
    with LRFinder().attach(trainer, to_save, end_lr=100.0, diverge_th=2) as sweep:
        sweep.run(data)
    trainer.run(data, max_epochs=3)
    assert trainer.state.epoch == 3


@pytest.mark.parametrize("step_mode", ["exp", "linear"])
def test_start_lr(trainer: Engine, to_save: dict[str, Any], data: torch.Tensor, step_mode: str) -> None:
    finder = LRFinder()
    with finder.attach(
        trainer, to_save, start_lr=0.01, end_lr=10.0, num_iter=5, step_mode=step_mode, diverge_th=1
    ) as sweep:
        sweep.run(data)
    assert finder.get_results()["lr"][0] == 0.01


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        ([10], TypeError, r"output of the engine should be of type float or 0d torch.Tensor"),
        ((10, 5), TypeError, r"output of the engine should be of type float or 0d torch.Tensor"),
        (torch.tensor([1.0, 2.0]), ValueError, r"if output of the engine is torch.Tensor"),
    ],
)
def test_engine_output_type(optimizer: SGD, output: Any, error: type[Exception], message: str) -> None:
    def step(engine: Engine, batch: Any) -> Any:
        optimizer.step()
        return output

    with pytest.raises(error, match=message), LRFinder().attach(Engine(step), {"optimizer": optimizer}) as sweep:
        sweep.run([1, 2])


@pytest.mark.parametrize("output", [10.0, torch.tensor(10.0), torch.tensor([10.0])])
def test_engine_output_is_a_float_in_the_results(optimizer: SGD, output: Any) -> None:
    def step(engine: Engine, batch: Any) -> Any:
        optimizer.step()
        return {"loss": output}

    finder = LRFinder()
    with finder.attach(Engine(step), {"optimizer": optimizer}, output_transform=lambda output: output["loss"]) as sweep:
        sweep.run([1, 2])
    assert finder.get_results()["loss"] == [10.0, 10.0]
    assert all(type(loss) is float for loss in finder.get_results()["loss"])


def test_lr_suggestion_unexpected_curve(optimizer: SGD) -> None:
    def step(engine: Engine, batch: Any) -> float:
        optimizer.step()
        return float(engine.state.iteration)

    finder = LRFinder()
    with finder.attach(Engine(step), {"optimizer": optimizer}, diverge_th=1000) as sweep:
        sweep.run(range(100))
    with pytest.raises(RuntimeError, match="loss"):
        finder.lr_suggestion()


def test_lr_suggestion_images() -> None:
    training, finder = Images(), LRFinder()
    with (
        finder.attach(training.trainer, training.to_save, diverge_th=2, step_mode="linear") as sweep,
        sweep.add_event_handler(Events.ITERATION_COMPLETED(once=50), lambda: sweep.terminate()),
    ):
        sweep.run(training.data)
    assert len(finder.get_results()["lr"]) <= 50
    assert 1e-4 <= finder.lr_suggestion() <= 2


def test_apply_suggested_lr_unmatched_optimizers() -> None:
    training, finder = Images(), LRFinder()
    with finder.attach(training.trainer, training.to_save) as sweep:
        sweep.run(training.data)
    with pytest.raises(RuntimeError, match=r"The number of parameter groups does not match"):
        finder.apply_suggested_lr(Groups().optimizer)


def test_apply_suggested_lr_single_param_group() -> None:
    training, finder = Images(), LRFinder()
    with finder.attach(training.trainer, training.to_save) as sweep:
        sweep.run(training.data)
    finder.apply_suggested_lr(training.optimizer)
    assert training.optimizer.param_groups[0]["lr"] == finder.lr_suggestion()


def test_apply_suggested_lr_multiple_param_groups() -> None:
    training, finder = Groups(), LRFinder()
    with finder.attach(training.trainer, training.to_save, start_lr=1e-4) as sweep:
        sweep.run(torch.rand(500, 2, 10))
    finder.apply_suggested_lr(training.optimizer)
    assert [group["lr"] for group in training.optimizer.param_groups] == finder.lr_suggestion()


def test_no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"This method requires matplotlib to be installed"):
        LRFinder().plot()


def assert_picture(ax: Any, path: Path) -> None:
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "Learning rate"
    assert ax.get_ylabel() == "Loss"
    ax.figure.savefig(path)
    assert path.stat().st_size > 0


def test_plot_single_param_group(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    training, finder = Images(), LRFinder()
    with finder.attach(training.trainer, training.to_save, end_lr=20.0, smooth_f=0.04) as sweep:
        sweep.run(training.data)
    finder.plot()
    assert_picture(finder.plot(skip_end=0), tmp_path / "plot.jpg")
    ax = Figure().add_subplot()
    assert finder.plot(skip_end=0, ax=ax) is ax
    assert_picture(ax, tmp_path / "given_axes.jpg")
    assert finder.plot(log_lr=False, display_suggestion=False, figsize=(3, 2)).get_xscale() == "linear"


def test_plot_multiple_param_groups(tmp_path: Path) -> None:
    training, finder = Groups(), LRFinder()
    with finder.attach(training.trainer, training.to_save, end_lr=20.0, smooth_f=0.04) as sweep:
        sweep.run(torch.rand(500, 2, 10))
    assert_picture(finder.plot(skip_start=0, skip_end=0), tmp_path / "plot.jpg")


def test_warnings_are_only_the_documented_one(trainer: Engine, to_save: dict[str, Any], data: torch.Tensor) -> None:
    with warnings.catch_warnings(record=True) as caught, LRFinder().attach(trainer, to_save, diverge_th=1e9) as sweep:
        warnings.simplefilter("always")
        sweep.run(data)
    assert [str(warning.message)[:40] for warning in caught] == ["Run completed without loss diverging, in"]
