"""Training that leaves no trace: what a range test and a study have in common.

**In** flow a training and a plan. The training is a ``Setting``: the trainer, ``to_save``, the optimizer, how to read
the loss, all checked by ``Setting.checked``. The plan is a function of the engine that gives a generator of passes. A
``Pass`` is a sequence of rates, one row an update, and a rule when to stop that is fed with the losses. Every pass
begins with the weights and states of the start; batches, random numbers and counters start over too (``rewind``) or
read on.

**Out** comes a ``Record`` for each pass: its losses, rates, and the reason why it ended. The generator is sent it
where it yielded the pass, while the training still is as the pass left it, and may decide by it what comes next::

    def plan(engine: DryRun) -> Passes:
        for rate in (0.1, 0.05):
            record = yield Pass([(rate,)] * 50, rewind=True)
            print(rate, record.reason, record.losses[-1])

    with Block("study", setting, plan) as engine:
        engine.run(loader)

After ``terminate()`` or an exception the record of the pass under way is the last: what is yielded then never runs.
Losses are means over the ranks, so that a plan which decides by records alone decides the same on every rank.

**Never** does anything of it remain: when the block ends, in whatever way, parameters, states, random numbers, data
and the trainer are what they were. No handler of the user's fires, no second dry run begins inside the first, and
nothing here knows what a range test, a rule or a study is.
"""

from ignite_lr.dry_run._batches import endless, is_one_shot, private_loader
from ignite_lr.dry_run._block import Block
from ignite_lr.dry_run._engine import DryRun
from ignite_lr.dry_run._failures import raise_failures
from ignite_lr.dry_run._loss import loss_of
from ignite_lr.dry_run._pass import Pass, Passes, Record
from ignite_lr.dry_run._ranks import mean_over_ranks
from ignite_lr.dry_run._setting import Setting
from ignite_lr.dry_run._snapshot import Snapshot
from ignite_lr.dry_run._state import private_state, stateful_values, user_values
from ignite_lr.dry_run._streams import batches_ahead, enter_stream
from ignite_lr.dry_run._tensors import place
from ignite_lr.dry_run._validation_loss import Validation, validator

__all__ = [
    "Block",
    "DryRun",
    "Pass",
    "Passes",
    "Record",
    "Setting",
    "Snapshot",
    "Validation",
    "batches_ahead",
    "endless",
    "enter_stream",
    "is_one_shot",
    "loss_of",
    "mean_over_ranks",
    "place",
    "private_loader",
    "private_state",
    "raise_failures",
    "stateful_values",
    "user_values",
    "validator",
]
