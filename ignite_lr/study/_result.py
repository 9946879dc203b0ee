"""What a study found: a value object over its trials, apart from everything that ran them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from ignite_lr.core.arguments import check_optimizer
from ignite_lr.core.rates import set_base_rates
from ignite_lr.core.updates import is_suspended
from ignite_lr.range_test import NoSuggestionError
from ignite_lr.study import _picture
from ignite_lr.study._feasible import best_of, by_rate, shortest_warmup, stable_and_unstable
from ignite_lr.study._file import read_study, write_study
from ignite_lr.study._findings import Finding, findings
from ignite_lr.study._runs import Settings, TrialResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["StudyResult"]

Rate = float | list[float]


@dataclass(frozen=True, repr=False)
class StudyResult:
    """What the trials of a study found.

    Attributes:
        trials: what became of each trial, in the order given. The last one may be ``"terminated"``; after Ctrl-C or an
            exception, those are there that were finished.
        settings: how the numbers were made: ``mode``, ``validated``, ``smooth_f`` and the ``ratios`` of the parameter
            groups.

    Example:
        >>> import torch
        >>> from ignite.engine import create_supervised_trainer
        >>> from ignite_lr import Trial, run_study
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> trainer = create_supervised_trainer(model, optimizer, torch.nn.functional.mse_loss)
        >>> data = [(x, x.sum(1, keepdim=True)) for x in torch.randn(50, 8, 4)]
        >>> result = run_study(trainer, data, {"model": model, "optimizer": optimizer},
        ...                    [Trial(0.001), Trial(0.1), Trial(10.0)], num_updates=40)
        >>> result.suggestion(), result.stable_lr, result.unstable_lr
        (0.1, 0.1, 10.0)
    """

    trials: tuple[TrialResult, ...]
    settings: Settings

    @property
    def best(self) -> TrialResult | None:
        """The feasible trial with the best objective; None if no trial learns."""
        return best_of(self.trials, self.settings)

    @property
    def stable_lr(self) -> float | None:
        """The largest feasible rate with no infeasible one between it and the smallest feasible rate, or None.

        Below the smallest feasible rate, rates are slow, not unstable.
        """
        return stable_and_unstable(self.trials)[0]

    @property
    def unstable_lr(self) -> float | None:
        """The smallest infeasible rate above :attr:`stable_lr`, or None."""
        return stable_and_unstable(self.trials)[1]

    @property
    def shortest_warmup(self) -> int | None:
        """The shortest warmup, in updates, of the feasible trials, 0 included; None where no trial has a warmup."""
        return shortest_warmup(self.trials)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the study shows and what to do next; each only where the numbers say so."""
        return findings(self.trials, self.settings)

    def suggestion(self) -> Rate:
        """The rate of the best trial.

        Returns:
            a rate; for several parameter groups a list with one for each, in the ratios of their base rates.

        Raises:
            NoSuggestionError: if no trial is feasible; says why.
        """
        best = self.best
        if best is None:
            raise NoSuggestionError(self._why_not())
        ratios = self.settings.ratios
        return best.trial.lr if len(ratios) == 1 else [best.trial.lr * ratio for ratio in ratios]

    def apply(self, optimizer: Optimizer, *, scheduler: Any = None) -> Rate:
        """Make the suggested rate the base rate of every parameter group, and write the rate that is due with it.

        Without a scheduler, that is the suggested rate. A :class:`ignite_lr.ScheduleLR` on this optimizer follows,
        whether it was made before or is made after; a warmup of the best trial is for one of yours.

        Args:
            optimizer: with as many groups as that of the study; any number of groups if that had one.
            scheduler: a scheduler that is not of this package, or a list of them: they keep base rates of their own
                (``base_lrs``), which are written too.

        Returns:
            the base rate: one, or a list of one for each parameter group.

        Raises:
            NoSuggestionError: if there is no suggestion; the optimizer is left alone.
            RuntimeError: inside the block of a study on this optimizer, which would undo it.
            TypeError: if ``optimizer`` or ``scheduler`` is none.
            ValueError: if the number of parameter groups does not match, or ``scheduler`` is that of another optimizer.

        Warns:
            UserWarning: if a scheduler that is neither of this package nor given was made before, which keeps its own
                base rates; if a ``ScheduleLR`` with ``absolute=True`` does.
        """
        check_optimizer(optimizer)
        if is_suspended(optimizer):
            raise RuntimeError(
                "apply() is for after the block: at its end the study restores this optimizer, rates included."
            )
        rate = self.suggestion()
        rates = rate if isinstance(rate, list) else [rate] * len(optimizer.param_groups)
        if len(rates) != len(optimizer.param_groups):
            raise ValueError(
                f"optimizer must have the {len(rates)} parameter groups of the study, got "
                f"{len(optimizer.param_groups)}."
            )
        set_base_rates(optimizer, rates, scheduler)
        return rate

    def columns(self) -> dict[str, list[Any]]:
        """The trials as columns of one length, by rate, for ``pandas.DataFrame``.

        Returns:
            ``name``, ``lr``, ``warmup_steps``, ``outcome``, ``feasible``, ``objective``, ``rise``, ``updates``.
        """
        rows = by_rate(self.trials)
        return {
            "name": [row.trial.label for row in rows],
            "lr": [row.trial.lr for row in rows],
            "warmup_steps": [row.warmup_steps for row in rows],
            "outcome": [row.outcome for row in rows],
            "feasible": [row.feasible for row in rows],
            "objective": [row.objective for row in rows],
            "rise": [row.rise for row in rows],
            "updates": [row.updates for row in rows],
        }

    def plot(self, ax: Axes | None = None, title: str | None = None) -> Axes:
        """Draw the objective over the rate: infeasible trials as crosses, repeats as a span, the best in colour.

        Args:
            ax: axes to draw on; None makes a figure, which belongs to no window.
            title: over the picture.

        Returns:
            the axes; ``.figure.savefig(path)`` writes the picture.

        Raises:
            ModuleNotFoundError: without Matplotlib.
        """
        return _picture.draw_axis(self._picture(), ax, title)

    def plot_curves(self, ax: Axes | None = None, title: str | None = None) -> Axes:
        """Draw the smoothed training loss of every trial over its updates, that of the best in colour.

        Args:
            ax: axes to draw on; None makes a figure, which belongs to no window.
            title: over the picture.

        Raises:
            ModuleNotFoundError: without Matplotlib.
        """
        return _picture.draw_curves(self._picture(), ax, title)

    def to_html(self, path: str | os.PathLike[str], title: str | None = None) -> Path:
        """Write both pictures to one HTML page that needs nothing else; hovering a trial lights its curve.

        Args:
            path: the file.
            title: over the picture.

        Returns:
            the path.

        Raises:
            ModuleNotFoundError: without Bokeh (``pip install bokeh``).
        """
        from ignite_lr.study._bokeh import study_html

        return study_html(self._picture(), path, title)

    def page(self, title: str | None = None) -> Any:
        """The pictures of :meth:`to_html` as models of Bokeh, for pages of your own."""
        from ignite_lr.study._bokeh import study_page

        return study_page(self._picture(), title)

    def to_optuna(self, study: Any = None) -> Any:
        """The trials as a study of Optuna, so that Bayesian optimisation can go on from them.

        Every trial has the parameter ``lr``. Feasible ones are COMPLETE, the others PRUNED; a terminated one is left
        out. A name, the warmup and the outcome are its user attributes.

        Args:
            study: one to add them to; None makes one in memory.

        Returns:
            the study.

        Raises:
            ModuleNotFoundError: without Optuna (``pip install optuna``).
            TypeError: if ``study`` is no study of Optuna.
            ValueError: if it optimises in the other direction.
        """
        from ignite_lr.study._optuna import to_optuna

        return to_optuna(self.trials, self.settings, study)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the study as JSON (RFC 8259); non-finite numbers become strings.

        Returns:
            the path.
        """
        return write_study(path, self.trials, self.settings)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> StudyResult:
        """Read what :meth:`save` wrote, or the ``file=`` of a study. Schedules come back as the factors they gave.

        Raises:
            ValueError: if the file is no study.
        """
        saved = read_study(path)
        return cls(saved.results(), saved.settings)

    def __repr__(self) -> str:
        lines = [f"<{type(self).__name__}: {len(self.trials)} trials, {self._says()}"]
        lines += [f"  {found.kind}: {found.text}" for found in self.findings]
        return "\n".join(lines) + ">"

    def _repr_html_(self) -> str:
        return _picture.page_of(self._picture(), self._says(), [(f.kind, f.text) for f in self.findings])

    def _says(self) -> str:
        best = self.best
        if best is None:
            return f"no suggestion ({self._why_not()})"
        stable, unstable = stable_and_unstable(self.trials)
        span = f"stable up to {stable:.3g}" + ("" if unstable is None else f", unstable at {unstable:.3g}")
        return f"best {best.trial.label} with {best.objective:.4g}; {span}"

    def _why_not(self) -> str:
        if not self.trials:
            return "no trial was finished"
        outcomes = [result.outcome for result in self.trials]
        if "completed" not in outcomes:
            counts = ", ".join(f"{outcomes.count(one)} {one}" for one in dict.fromkeys(outcomes))
            return f"no trial completed: {counts}; try lower rates"
        if any(result.feasible for result in self.trials):
            return "no feasible trial has an objective: the validation gave no number"
        return "no trial brought the loss down: try more updates, or other rates"

    def _picture(self) -> _picture.StudyPicture:
        return _picture.StudyPicture.of(by_rate(self.trials), self.best, self.unstable_lr, self.settings)
