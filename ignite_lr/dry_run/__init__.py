"""Training that leaves no trace."""

from ignite_lr.dry_run._batches import endless, private_loader
from ignite_lr.dry_run._failures import raise_failures
from ignite_lr.dry_run._loss import loss_of
from ignite_lr.dry_run._snapshot import Snapshot
from ignite_lr.dry_run._state import private_state, stateful_values, user_values
from ignite_lr.dry_run._tensors import place
from ignite_lr.dry_run._validation_loss import Validation, validator

__all__ = [
    "Snapshot",
    "Validation",
    "endless",
    "loss_of",
    "place",
    "private_loader",
    "private_state",
    "raise_failures",
    "stateful_values",
    "user_values",
    "validator",
]
