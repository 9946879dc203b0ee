"""A study as one of Optuna's, so that Bayesian optimisation goes on where it ended."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

from ignite_lr.study._runs import Settings, TrialResult

__all__ = ["to_optuna"]


def to_optuna(trials: Sequence[TrialResult], settings: Settings, study: Any = None) -> Any:
    """Add the trials to a study of Optuna; see ``StudyResult.to_optuna``."""
    try:
        optuna: Any = importlib.import_module("optuna")
    except ImportError as error:
        raise ModuleNotFoundError(
            "to_optuna requires optuna to be installed: pip install optuna", name="optuna"
        ) from error
    direction = optuna.study.StudyDirection.MAXIMIZE if settings.mode == "max" else optuna.study.StudyDirection.MINIMIZE
    if study is None:
        study = optuna.create_study(direction=direction)
    elif not isinstance(study, optuna.Study):
        raise TypeError(f"study must be an optuna.Study or None, got {type(study).__name__}.")
    elif study.directions != [direction]:
        raise ValueError(
            f"study must have the direction {direction.name} of this study's mode={settings.mode!r}, got "
            f"{', '.join(one.name for one in study.directions)}."
        )
    kept = [result for result in trials if result.outcome != "terminated"]
    if not kept:
        return study
    rates = [result.trial.lr for result in kept]
    range_of_rates = optuna.distributions.FloatDistribution(min(rates), max(rates), log=True)
    for result in kept:
        complete = result.feasible and math.isfinite(result.objective)
        finite = [(step, loss) for step, loss in enumerate(result.losses) if math.isfinite(loss)]
        study.add_trial(
            optuna.create_trial(
                state=optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.PRUNED,
                value=result.objective if complete else None,
                params={"lr": result.trial.lr},
                distributions={"lr": range_of_rates},
                user_attrs={
                    "name": result.trial.label,
                    "outcome": result.outcome,
                    "warmup_steps": result.warmup_steps,
                },
                # a sampler ranks pruned trials by the last of these; an accuracy is no loss, so there it has none
                intermediate_values=dict(finite[-1:]) if settings.mode == "min" and not complete else {},
            )
        )
    return study
