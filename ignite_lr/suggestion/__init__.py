"""Rules that read a learning rate off the curve of a range test.

Every rule is a pure function of ``lrs`` and ``losses``, two 1-d sequences of the same length:
positive, increasing learning rates and the training loss seen at each. ``RULES`` names them all.

- ``descent`` is the default rule. It reads **raw** losses and is the only one that abstains, by
  raising ``NoSuggestionError``. ``judge`` returns the same answer as a ``Verdict`` (rate,
  confidence, reason, interval) and never abstains by raising; ``judge_repeats`` does so for
  several sweeps over the same rates.
- ``steepest`` and the rules of fastai (``valley``, ``slide``, ``minimum``, ``steep``) read
  **smoothed** losses, as the originals do, and always answer.
- ``unstable_lr`` says from which rate on the loss never comes back.
"""

from ignite_lr.suggestion._descent import (
    DEFAULT,
    MIN_CONFIDENCE,
    RULES,
    NoSuggestionError,
    Verdict,
    descent,
    judge,
    judge_repeats,
    unstable_lr,
)
from ignite_lr.suggestion._peers import minimum, slide, steep, steepest, valley

__all__ = [
    "DEFAULT",
    "MIN_CONFIDENCE",
    "RULES",
    "NoSuggestionError",
    "Verdict",
    "descent",
    "judge",
    "judge_repeats",
    "minimum",
    "slide",
    "steep",
    "steepest",
    "unstable_lr",
    "valley",
]
