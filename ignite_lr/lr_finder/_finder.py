"""The learning-rate range test: a sweep over rates that leaves no trace in the training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine
from torch.optim import Optimizer

from ignite_lr.core.arguments import Flag, Whole, check_optimizer, shown
from ignite_lr.core.figure import axes, private_figure
from ignite_lr.dry_run import Block, Setting, Validation
from ignite_lr.lr_finder._plan import SweepPlan
from ignite_lr.lr_finder._sweep import sweep
from ignite_lr.range_test import RangeTestResult, leading_lrs

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes

__all__ = ["LRFinder"]

_NOT_RUN = "learning rate finder didn't run yet so {} can't be {}"


class LRFinder:
    """Learning-rate range test for any Ignite trainer.

    The rate rises with every update of the optimizer, from a rate that is too small to one that is too large, and the
    losses on the way say which is right. Whatever the sweep disturbs is restored when the block ends, in whatever way
    it ends: training afterwards is bitwise the same as without the sweep.

    Drop-in for ``ignite.handlers.FastaiLRFinder``.

    Example:
        >>> import torch
        >>> from ignite.engine import create_supervised_trainer
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> trainer = create_supervised_trainer(model, optimizer, torch.nn.functional.mse_loss)
        >>> x = torch.randn(50, 8, 4)
        >>> data = [(batch, batch.sum(1, keepdim=True)) for batch in x]
        >>> finder = LRFinder()
        >>> with finder.attach(trainer, {"model": model, "optimizer": optimizer},
        ...                    num_iter=100, start_lr=1e-5, end_lr=10.0) as sweep:
        ...     _ = sweep.run(data)
        >>> finder.result.stop_reason
        'divergence'
        >>> optimizer.param_groups[0]["lr"]
        0.1

    References:
        Smith, Cyclical Learning Rates for Training Neural Networks, https://arxiv.org/abs/1506.01186
    """

    def __init__(self) -> None:
        self._result: RangeTestResult | None = None

    @property
    def result(self) -> RangeTestResult:
        """What the last sweep found; after an exception, the points up to it.

        Raises:
            RuntimeError: before the first sweep.
        """
        if self._result is None:
            raise RuntimeError(_NOT_RUN.format("its result", "read"))
        return self._result

    def attach(
        self,
        trainer: Engine,
        to_save: Mapping[str, Any],
        output_transform: Callable[[Any], Any] = lambda output: output,
        num_iter: int | None = None,
        start_lr: float | Sequence[float] | None = None,
        end_lr: float | Sequence[float] = 10.0,
        step_mode: str = "exp",
        smooth_f: float = 0.05,
        diverge_th: float = 5.0,
        *,
        optimizer_key: str = "optimizer",
        ratios: str | None = None,
        validation: Validation | None = None,
        repeats: int = 1,
        verify: int = 0,
        skip_nonfinite: int = 0,
        snapshot_to: torch.device | str | os.PathLike[str] | None = None,
        progress_bar: bool | None = None,
        logger: Any = None,
    ) -> Block:
        """Prepare a range test; use it as ``with finder.attach(...) as sweep: sweep.run(loader)``.

        ``sweep`` is an engine of its own that runs the trainer's process function. The trainer's handlers do not fire;
        until the block ends the trainer carries the sweep's state, then it gets its own back.

        Args:
            trainer: fresh, finished, interrupted, loaded or crashed: it goes on afterwards as if nothing had been.
            to_save: what the sweep changes and the end of the block restores, by name: the optimizer and every module
                that the training step uses. Gradient scalers, EMA models and further optimizers belong here too if the
                step changes them; a trainer is left alone. Further optimizers that are not mentioned, but step,
                are restored with their parameters all the same; the buffers and modes of their modules are not.
            output_transform: picks the loss out of what the process function returns: a number, or a tensor or array
                of one element. None, from either, is a batch that was skipped: no point, and no reason to stop; where
                it made an update, the next one has the same rate.
            num_iter: the number of points, that is of updates of the optimizer. None: as many as ``run``'s data has
                batches, times its ``max_epochs``.
            start_lr: the rate of the first point, one number or one for each parameter group. None: the present rates,
                as with ``FastaiLRFinder``; where these are too high to show the whole curve, the result says so.
            end_lr: the rate of the last point, likewise.
            step_mode: ``"exp"`` (a constant factor from point to point) or ``"linear"``.
            smooth_f: weight of the new loss in the smoothed losses, in [0, 1); 0 means no smoothing.
            diverge_th: the sweep stops when the smoothed loss exceeds this multiple of the best one, at least 1. For
                losses that are not all positive it stops when the rise exceeds ``diverge_th - 1`` times the range of
                the losses before.
            optimizer_key: which entry of ``to_save`` is swept; the other optimizers keep their rates.
            ratios: ``"keep"`` sweeps all groups with their present ratios: the one with the largest rate runs from
                ``start_lr`` to ``end_lr``. None gives every group the same rates, or its own from a list.
            validation: records a validation loss instead of the training loss: a function without arguments, called
                after every update, or ``(evaluator, loader, metric name)``, of whose handlers only the metrics run.
            repeats: sweep so many times from the same start over different batches; the result suggests from all of
                them and gives an interval. The iterations add up: ``repeats * num_iter`` updates.
            verify: the updates of each trial at a constant rate that follows the sweep, from the same start and over
                the same batches: downwards in factors of two from the default rule's suggestion until a rate has
                learnt and a lower one clearly less, at most 12; four times as many updates each from the edge, where
                the rule abstains, and where nothing learns at first. Where the noise of the batches hides what those
                from the edge learn, one more, at a rate that changes nothing, is the control: beside it they are
                compared batch by batch. ``result.verified`` has them, and ``result.suggestion()`` is the largest rate
                that learns. 0: no trials.
            skip_nonfinite: so many losses of each sweep, and of each trial, that are not finite pass like skipped
                batches; the next one stops it. 0: the first one does.
            snapshot_to: where the copy of the training lies: None for the devices where it is, ``"cpu"`` or another
                device, or a directory.
            progress_bar: None shows one on a terminal; True and False force it.
            logger: a ``TensorboardLogger`` to write the curve and its picture to, under ``range_test/``. The x axis
                of the curve is 1000 * log10(lr), rounded, because TensorBoard has whole steps only.

        Returns:
            a context manager that gives the sweep's engine.

        Raises:
            TypeError: if an argument has the wrong type.
            ValueError: if an argument is out of its range.

        Warns:
            UserWarning: "Run completed without loss diverging", if it did; for data whose position or random state
                cannot be restored.
        """
        setting = Setting.checked(
            trainer, to_save, optimizer_key, output_transform, validation, snapshot_to, progress_bar
        )
        if logger is not None and not hasattr(getattr(logger, "writer", logger), "add_figure"):
            raise TypeError(f"logger should be a TensorboardLogger, but given {type(logger)}")
        plan = SweepPlan(
            setting.optimizer,
            num_iter,
            start_lr,
            end_lr,
            step_mode,
            smooth_f,
            diverge_th,
            ratios,
            repeats,
            verify,
            skip_nonfinite,
        )

        def deliver(result: RangeTestResult | None = None) -> None:
            self._result = result

        return Block(
            "range test",
            setting,
            lambda engine: sweep(engine, plan, deliver),
            entered=deliver,
            left=lambda: _log(logger, self._result),
        )

    def __repr__(self) -> str:
        return f"LRFinder({'not run yet' if self._result is None else repr(self._result)})"

    def get_results(self) -> dict[str, list[Any]]:
        """The sweep as ``{"lr": [...], "loss": [...]}``: applied rates (lists for several groups), smoothed losses."""
        if self._result is None:
            return {}
        lrs = [list(lr) if isinstance(lr, tuple) else lr for lr in self._result.lrs]
        return {"lr": lrs, "loss": list(self._result.smoothed_losses)}

    def lr_suggestion(self) -> float | list[float]:
        """The suggested rate, a list for several parameter groups; see ``RangeTestResult.suggestion``.

        Raises:
            RuntimeError: before the first sweep; ``NoSuggestionError`` if the curve supports no suggestion.
        """
        if self._result is None:
            raise RuntimeError(_NOT_RUN.format("lr_suggestion", "returned"))
        return self._result.suggestion()

    def apply_suggested_lr(self, optimizer: Optimizer) -> None:
        """Write the suggested rates to the optimizer that was swept, or to one with the same parameter groups.

        Raises:
            RuntimeError: if the number of parameter groups does not match, or as in :meth:`lr_suggestion`.
            TypeError: if ``optimizer`` is none.
        """
        check_optimizer(optimizer)
        if self._result is None:
            raise RuntimeError(_NOT_RUN.format("lr_suggestion", "returned"))
        if self._result.groups != len(optimizer.param_groups):
            raise RuntimeError(
                "The number of parameter groups does not match between given optimizer and the one used for "
                f"estimating the learning rate: {len(optimizer.param_groups)} vs {self._result.groups}"
            )
        self._result.apply(optimizer)

    def plot(
        self,
        skip_start: int = 10,
        skip_end: int = 5,
        log_lr: bool = True,
        display_suggestion: bool = True,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Axes:
        """Draw the curve; ``finder.result.plot()`` draws all of it.

        Args:
            skip_start: points to leave out at the beginning.
            skip_end: points to leave out at the end.
            log_lr: whether the x axis is logarithmic.
            display_suggestion: whether to mark the suggestion, if there is one.
            ax: axes to draw on; None makes a figure, pyplot's current one where pyplot is imported.
            kwargs: for that figure, such as ``figsize``.

        Raises:
            ModuleNotFoundError: without Matplotlib.
            RuntimeError: before the first sweep.
            TypeError: if an argument is of the wrong type.
            ValueError: if ``skip_start`` or ``skip_end`` is negative.
        """
        Flag().check("log_lr", log_lr)
        Flag().check("display_suggestion", display_suggestion)
        for name, value in (("skip_start", skip_start), ("skip_end", skip_end)):
            Whole().check(name, value)
            if value < 0:
                raise ValueError(f"{name} cannot be negative, got {shown(value)}")
        try:
            import matplotlib.figure  # noqa: F401 - whether it can be had
        except ImportError as error:
            raise ModuleNotFoundError(
                "This method requires matplotlib to be installed. Please install it with command: \n "
                "pip install matplotlib"
            ) from error
        if self._result is None:
            raise RuntimeError(_NOT_RUN.format("results", "plotted"))
        ax = axes(ax, **kwargs)
        return self._result.plot(
            ax, skip_start=skip_start, skip_end=skip_end, log_lr=log_lr, suggestions=display_suggestion
        )


def _log(logger: Any, result: RangeTestResult | None) -> None:
    """Write the curve and the picture to TensorBoard."""
    if logger is None or result is None or idist.get_rank() != 0:
        return
    writer = getattr(logger, "writer", logger)
    axis = leading_lrs(result.lrs)
    for index, rate in enumerate(axis):
        if rate > 0:
            # TensorBoard knows whole steps only: thousandths of a decade, so that -3000 is 1e-3
            step = round(1000 * math.log10(rate))
            writer.add_scalar("range_test/loss", result.losses[index], step)
            writer.add_scalar("range_test/smoothed_loss", result.smoothed_losses[index], step)
        writer.add_scalar("range_test/lr", rate, index)
    # not pyplot's: nobody would close it
    writer.add_figure("range_test/curve", result.plot(private_figure(6.4, 5.0).add_subplot()).figure)
