"""The file of a study: JSON after RFC 8259, non-finite numbers as strings.

It holds the runs as they came and how their numbers were made, nothing that follows from these: what is feasible or
best is worked out anew when it is read. The ``file=`` of a study has the plan in addition, so that a study that goes
on can tell whether it is the same one. A file is written beside its name and then moved there, so that whoever looks
finds a whole one, also after a crash.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ignite_lr.core.arguments import check_path, shown
from ignite_lr.study._runs import OUTCOMES, Run, Settings, TrialResult, trial_results
from ignite_lr.study._trials import Recorded, Trial

__all__ = ["Saved", "read_study", "write_study"]

_FORMAT = "ignite_lr.StudyResult"
_VERSION = 1


@dataclass(frozen=True)
class Saved:
    """What a file holds.

    Attributes:
        trials: what was tried.
        planned: how many updates each was to make.
        runs: the runs of each.
        settings: what the numbers mean.
        plan: what else has to be the same for the study to go on; empty if the file is no ``file=`` of a study.
    """

    trials: tuple[Trial, ...]
    planned: tuple[int, ...]
    runs: tuple[tuple[Run, ...], ...]
    settings: Settings
    plan: Mapping[str, Any]

    def results(self) -> tuple[TrialResult, ...]:
        """What became of the trials."""
        return trial_results(self.trials, self.planned, self.runs, self.settings)


def write_study(
    path: str | os.PathLike[str],
    trials: Sequence[TrialResult],
    settings: Settings,
    plan: Mapping[str, Any] | None = None,
) -> Path:
    """Write a study; see ``StudyResult.save``.

    Raises:
        OSError: if the file cannot be written; what was there before is still there.
    """
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "settings": asdict(settings),
        **({} if plan is None else {"plan": plan}),
        "trials": [
            {"trial": as_plain(result.trial, result.planned), "runs": [asdict(run) for run in result.repeats]}
            for result in trials
        ],
    }
    target = check_path(path)
    # beside the target, because a file can only be moved at once within one file system
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with open(beside, "w", encoding="utf-8") as file:
            file.write(json.dumps(_to_json(content), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except OSError as error:
        if error.filename is not None:  # that of the user, which says more than the one beside it
            error.filename, error.filename2 = os.fspath(target), None
        raise
    finally:
        beside.unlink(missing_ok=True)
    return target


def as_plain(trial: Trial, planned: int) -> dict[str, Any]:
    """A trial as plain values; its schedule by the factors that it gives."""
    schedule = None
    if trial.schedule is not None:
        known = getattr(trial.schedule, "warmup_steps", None)
        schedule = {
            "values": list(trial.factors(planned)),
            "warmup_steps": known if isinstance(known, int) else None,
        }
    return {
        "lr": trial.lr,
        "schedule": schedule,
        "num_updates": trial.num_updates,
        "name": trial.name,
        "planned": planned,
    }


def read_study(path: str | os.PathLike[str]) -> Saved:
    """Read a study; see ``StudyResult.load``.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no study.
    """
    target = check_path(path)
    name = repr(os.fspath(path))
    try:
        content = json.loads(target.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also a number of more digits than Python reads
        raise ValueError(f"{name} is no study: not JSON ({error})") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{name} is no study: it has no format {_FORMAT!r}")
    if content.get("version") != _VERSION:
        raise ValueError(f"{name} is a study of version {shown(content.get('version'))}, this package reads {_VERSION}")
    try:
        entries = content["trials"]
        pairs = [_trial(entry["trial"]) for entry in entries]
        return Saved(
            trials=tuple(trial for trial, _ in pairs),
            planned=tuple(planned for _, planned in pairs),
            runs=tuple(_runs(entry["runs"]) for entry in entries),
            settings=_settings(content["settings"]),
            plan=dict(content.get("plan", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{name} is a damaged study: {type(error).__name__}: {error}") from error


def _trial(content: Mapping[str, Any]) -> tuple[Trial, int]:
    schedule = content["schedule"]
    if schedule is not None:
        values, known = tuple(map(_factor, schedule["values"])), schedule["warmup_steps"]
        if not values or not (known is None or isinstance(known, int)):
            raise ValueError("a schedule must have factors, and a whole number of warmup steps or none")
        schedule = Recorded(values, known)
    trial = Trial(content["lr"], schedule, content["num_updates"], content["name"])
    return trial, _whole(content["planned"])


def _runs(content: Sequence[Mapping[str, Any]]) -> tuple[Run, ...]:
    if not content:
        raise ValueError("a trial must have a run")
    return tuple(map(_run, content))


def _run(content: Mapping[str, Any]) -> Run:
    if content["outcome"] not in OUTCOMES:
        raise ValueError(f"an outcome must be one of {OUTCOMES}, got {shown(content['outcome'])}")
    validations = tuple((_whole(update), _number(value)) for update, value in content["validations"])
    return Run(content["outcome"], tuple(map(_number, content["losses"])), validations)


def _settings(content: Mapping[str, Any]) -> Settings:
    mode, validated = content["mode"], content["validated"]
    if mode not in ("min", "max") or not isinstance(validated, bool):
        got = f"got {shown(mode)} and {shown(validated)}"
        raise ValueError(f"mode must be 'min' or 'max' and validated a truth value, {got}")
    return Settings(mode, validated, _number(content["smooth_f"]), tuple(map(_number, content["ratios"])))


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"a count must be an integer, got {shown(value)}")
    return value


def _factor(value: Any) -> float:
    number = _number(value)
    if not 0.0 <= number < math.inf:
        raise ValueError(f"a schedule must have finite factors of at least 0, got {number}")
    return number


def _number(value: Any) -> float:
    if value in ("nan", "inf", "-inf") or (isinstance(value, int | float) and not isinstance(value, bool)):
        return float(value)
    raise TypeError(f"a number must be one, got {shown(value)}")


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value
