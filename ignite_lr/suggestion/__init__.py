"""Rules that read a learning rate off the curve of a range test.

In flow ``lrs`` and ``losses``, two 1-d sequences of the same length: positive, increasing learning rates and the
training loss seen at each. Out flows a rate. Every rule is a pure function of the two; ``RULES`` names them all.

- ``descent`` is the default rule. It reads **raw** losses and is the only one that abstains, by raising
  ``NoSuggestionError``. ``judge`` returns the same answer as a ``Verdict`` (rate, confidence, reason, interval) and
  never abstains by raising; ``judge_repeats`` does so for several sweeps over the same rates.
- ``steepest``, the rules of fastai (``valley``, ``slide``, ``minimum``, ``steep``) and Ignite's
  (``fastai_lr_finder``) read **smoothed** losses, as the originals do, and always answer.
- ``unstable_lr`` says from which rate on the loss is back where it started.

What must never happen: that the default rule names a rate outside the swept range, that an answer depends on anything
but the two arguments, or that losses scaled or shifted give another one. Nothing of PyTorch or of the other rooms is
known here.
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
from ignite_lr.suggestion._descent import LOWER as LOWER  # for the reason of a range test
from ignite_lr.suggestion._fall import noise_of as noise_of  # for the trials of a range test
from ignite_lr.suggestion._peers import fastai_lr_finder, minimum, slide, steep, steepest, valley

__all__ = [
    "DEFAULT",
    "MIN_CONFIDENCE",
    "RULES",
    "NoSuggestionError",
    "Verdict",
    "descent",
    "fastai_lr_finder",
    "judge",
    "judge_repeats",
    "minimum",
    "slide",
    "steep",
    "steepest",
    "unstable_lr",
    "valley",
]
