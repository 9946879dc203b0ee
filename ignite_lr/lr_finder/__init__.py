"""The range test itself: a sweep over rates as one kind of dry run.

**In** flow a trainer, ``to_save`` and a range of rates. ``_plan`` checks the arguments and says which rates; ``_sweep``
makes passes of them, one for each repeat and one for each trial; ``_finder`` is the drop-in for Ignite's
``FastaiLRFinder``, ``_find`` the one call. **Out** comes a ``RangeTestResult``. What the sweep disturbs and how that is
restored is no business of this room: ``dry_run`` sees to it. It never judges a curve either: ``range_test`` does.
"""

from ignite_lr.lr_finder._find import find_lr
from ignite_lr.lr_finder._finder import LRFinder

__all__ = ["LRFinder", "find_lr"]
