"""What the Deep Learning Tuning Playbook asks of a study, answered from its numbers.

Every question is a function of the study's trials that gives a text, or None where the numbers do not say so; a text
says what was seen, what to do next and, where that is a rate or a warmup, the line of code that does it. The questions
are those of "Extracting insight from experimental results" and of "How can optimization failures be debugged and
mitigated?" in https://github.com/google-research/tuning_playbook.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ignite_lr.study._feasible import judged, ranking, stable_and_unstable
from ignite_lr.study._runs import Settings, TrialResult, tail

__all__ = ["Finding", "findings"]


@dataclass(frozen=True)
class Finding:
    """Something that a study shows, and what to do about it.

    Attributes:
        kind: ``"boundary"``, ``"edge"``, ``"infeasible"``, ``"sparse"``, ``"noise"``, ``"overfitting"``,
            ``"unfinished"``, ``"saturated"``, ``"oscillating"`` or ``"training_loss"``.
        text: what was seen and what to do next.

    Example:
        >>> import math
        >>> from ignite_lr import Trial
        >>> from ignite_lr.study._runs import Run, trial_results
        >>> curve = tuple(2 * math.exp(-step / 20) for step in range(100))
        >>> listed = [Trial(0.1), Trial(0.2)]
        >>> results = trial_results(listed, [100, 100], [[Run("completed", curve)], [Run("diverged", (2.0, 9.0))]],
        ...                         Settings())
        >>> [found.kind for found in findings(results, Settings())]
        ['boundary', 'edge', 'infeasible', 'sparse', 'training_loss']
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Evidence:
    """What the questions look at.

    Attributes:
        trials: all that were not terminated, by rate.
        ranked: the feasible ones, the best first; at least one.
        settings: what the numbers mean.
    """

    trials: Sequence[TrialResult]
    ranked: Sequence[TrialResult]
    settings: Settings

    @property
    def best(self) -> TrialResult:
        """The best feasible trial."""
        return self.ranked[0]

    @property
    def rates(self) -> list[float]:
        """The rates tried, each once, increasing."""
        return sorted({result.trial.lr for result in self.trials})

    def fails(self, lr: float) -> bool:
        """Whether no trial at this rate is feasible."""
        return not any(result.feasible for result in self.trials if result.trial.lr == lr)


def findings(trials: Sequence[TrialResult], settings: Settings) -> tuple[Finding, ...]:
    """What the trials show, in the order in which to act on it.

    Args:
        trials: of the study, in any order.
        settings: what their numbers mean.
    """
    ranked = ranking(trials, settings)
    if not ranked:  # nothing learns: what there is to say is no question about the best trial
        return ()
    evidence = Evidence(judged(trials), ranked, settings)
    answers = ((kind, question(evidence)) for kind, question in _QUESTIONS.items())
    return tuple(Finding(kind, text) for kind, text in answers if text is not None)


def boundary(evidence: Evidence) -> str | None:
    """Does the best of several rates lie at the end of the range?"""
    rates, best = evidence.rates, evidence.best.trial.lr
    if len(rates) < 2 or rates[0] < best < rates[-1]:
        return None
    if best == rates[-1]:
        return (
            f"The best rate, {best:.3g}, is the largest one tried: a better one may lie above it. Widen the range: "
            f"trials.spread({best:.3g}, {10 * best:.3g}, n=4)."
        )
    return (
        f"The best rate, {best:.3g}, is the smallest one tried: a better one may lie below it. Widen the range: "
        f"trials.spread({best / 10:.3g}, {best:.3g}, n=4)."
    )


def edge(evidence: Evidence) -> str | None:
    """Is the best rate the last one before rates that fail?"""
    best = evidence.best.trial.lr
    above = next((lr for lr in evidence.rates if lr > best), None)
    if above is None or not evidence.fails(above):
        return None
    longest = max((result.warmup_steps for result in evidence.trials), default=0)
    steps = (10 * longest, 100 * longest) if longest else (0, 10, 100)
    return (
        f"The best rate, {best:.3g}, is the last one before rates that fail ({above:.3g}): training is held back by an "
        f"instability. A warmup may allow a higher rate: trials.warmups({above:.3g}, warmup_steps={steps}); so may "
        "clipping: GradNormClipper(optimizer).attach(trainer)."
    )


def infeasible(evidence: Evidence) -> str | None:
    """Did most rates above the smallest feasible one fail?"""
    lowest = min(result.trial.lr for result in evidence.trials if result.feasible)
    above = [lr for lr in evidence.rates if lr > lowest]
    failed = [lr for lr in above if evidence.fails(lr)]
    if 2 * len(failed) <= len(above):
        return None
    stable, unstable = stable_and_unstable(evidence.trials)
    top = unstable if unstable is not None else stable
    return (
        f"{len(failed)} of {len(above)} rates above {lowest:.3g} failed: most of the study was spent where nothing can "
        f"be learnt. Search below them: trials.spread({lowest / 10:.3g}, {top:.3g}, n={max(4, len(above))})."
    )


def sparse(evidence: Evidence) -> str | None:
    """Is there but one trial in the good region?"""
    best = evidence.best
    good = [result for result in evidence.trials if result.feasible and result.descent >= 0.8 * best.descent]
    if len(evidence.trials) < 2 or len(good) > 1:
        return None
    rate = best.trial.lr
    return (
        f"Only the trial at {rate:.3g} comes within a fifth of the best descent: the good region was hit once, and its "
        f"best rate may be missed. Sample it more densely: trials.spread({rate / 3:.3g}, {rate * 3:.3g}, n=6)."
    )


def noise(evidence: Evidence) -> str | None:
    """Is the lead of the best smaller than what chance makes?"""
    if len(evidence.ranked) < 2:
        return None
    best, second = evidence.ranked[:2]
    error, source = _standard_error(best, evidence.settings)
    lead = abs(second.objective - best.objective)
    if not lead < error:
        return None
    return (
        f"The best rate, {best.trial.lr:.3g}, leads the second, {second.trial.lr:.3g}, by {lead:.2g}, less than the "
        f"standard error of {source}, {error:.2g}: either may be the better one. Repeat them over other batches: "
        f"study.attach(..., trials=[Trial({best.trial.lr:.3g}), Trial({second.trial.lr:.3g})], "
        f"repeats={max(5, 2 * len(best.repeats))})."
    )


def overfitting(evidence: Evidence) -> str | None:
    """Did the validation of the best get worse for good?"""
    best, settings = evidence.best, evidence.settings
    sign = -1.0 if settings.mode == "max" else 1.0
    values = np.array([sign * value for _, value in best.validations])
    if len(values) < 4 or not np.isfinite(values).all():
        return None
    lowest = int(values.argmin())
    after = values[lowest + 1 :]
    if len(after) < 2:
        return None
    # the curvature of a smooth curve is small, so second differences are noise: sqrt(6) sigma wide for white noise
    sigma = 1.4826 * float(np.median(np.abs(np.diff(values, 2)))) / math.sqrt(6.0)
    scale = float(np.ptp(values)) if settings.mode == "max" else abs(best.losses[0] - float(values[lowest]))
    worse = float(after[len(after) // 2 :].min() - values[lowest])
    if not worse > max(0.02 * scale, 3.0 * sigma):
        return None
    update, value = best.validations[lowest]
    return (
        f"The validation of the best trial is best after {update} updates ({value:.4g}) and gets worse from there, to "
        f"{best.validations[-1][1]:.4g}: it overfits. Compare trials of that length, num_updates={update}, or "
        "regularise (weight decay, dropout, augmentation) before tuning the rate further."
    )


def unfinished(evidence: Evidence) -> str | None:
    """Was the best still improving at the end?"""
    best = evidence.best
    fall, error = _fall(best.losses, 0.2)
    if not (fall > 0.1 * best.descent and fall > 2.0 * error):
        return None
    return (
        f"The best trial was still improving: {fall / best.descent:.0%} of its descent came in the last fifth of its "
        "updates, and trials that are too short favour high rates. Train longer: "
        f"num_updates={2 * len(best.losses)}."
    )


def saturated(evidence: Evidence) -> str | None:
    """Was the best done half way?"""
    best = evidence.best
    fall, error = _fall(best.losses, 0.5)
    # too noisy to tell a fall of 2% from none: then the numbers do not say so
    if not (fall < 0.02 * best.descent and error < 0.05 * best.descent):
        return None
    return (
        f"The best trial was done half way: the second half of its updates brought {max(fall, 0) / best.descent:.0%} "
        f"of its descent. Shorter trials say the same, num_updates={max(1, len(best.losses) // 2)}; for a lower loss, "
        "let the rate decay at the end, schedules.Linear(total_steps), or use a larger model."
    )


def oscillating(evidence: Evidence) -> str | None:
    """Does the loss of the best go up and down in large steps late in training?"""
    best = evidence.best
    late = np.asarray(best.losses[-max(10, len(best.losses) // 5) :])
    steps = np.diff(late)
    if len(steps) < 9 or min((steps > 0).mean(), (steps < 0).mean()) < 0.2:
        return None
    size = float(np.abs(steps).mean())
    if not size > 0.2 * best.descent:
        return None
    rate = best.trial.lr
    return (
        f"Late in training, the loss of the best trial still moves by {size:.2g} from update to update, "
        f"{size / best.descent:.0%} of its descent. Let the rate decay, Trial({rate:.3g}, "
        f"schedules.Linear(total_steps={len(best.losses)})), use larger batches, or average the weights."
    )


def training_loss(evidence: Evidence) -> str | None:
    """Is the objective a training loss?"""
    if evidence.settings.validated:
        return None
    return (
        "Trials are compared by their training loss, which favours rates that overfit. Give attach() a validation: "
        'validation=(evaluator, valid_loader, "loss").'
    )


_QUESTIONS: dict[str, Callable[[Evidence], str | None]] = {
    "boundary": boundary,
    "edge": edge,
    "infeasible": infeasible,
    "sparse": sparse,
    "noise": noise,
    "overfitting": overfitting,
    "unfinished": unfinished,
    "saturated": saturated,
    "oscillating": oscillating,
    "training_loss": training_loss,
}


def _standard_error(result: TrialResult, settings: Settings) -> tuple[float, str]:
    """How far chance moves an objective, and where that was read off; 0 where nothing tells."""
    if len(result.repeats) > 1:
        values = [
            run.validations[-1][1] if settings.validated else float(np.mean(tail(run.losses))) for run in result.repeats
        ]
        return float(np.std(values, ddof=1)) / math.sqrt(len(values)), f"its {len(values)} repeats"
    if settings.validated and settings.mode == "max":
        return 0.0, "nothing"  # an accuracy is no loss: the batches' noise is on another scale
    last = tail(result.losses)
    if len(last) < 2:
        return 0.0, "nothing"
    return float(np.std(last, ddof=1)) / math.sqrt(len(last)), f"its last {len(last)} losses"


def _fall(losses: Sequence[float], share: float) -> tuple[float, float]:
    """How far the losses fell in the last share of the updates, by the line of least squares, and its standard error.

    Returns:
        (0, inf) where there are too few losses to tell.
    """
    last = np.asarray(losses[-round(share * len(losses)) :] if losses else ())
    n = len(last)
    if n < 5:
        return 0.0, math.inf
    x = np.arange(n) - (n - 1) / 2
    slope = float(x @ last / (x @ x))
    residual = last - last.mean() - slope * x
    error = math.sqrt(float(residual @ residual) / (n - 2) / float(x @ x))
    return -slope * n, error * n
