"""The rates that updates really used, in every experiment logger.

What flows in: the updates of optimizers, as :class:`~ignite_lr.core.updates.Updates` tells of them, between
``backward()`` and the update (the values in use) and after it (that it was one). What flows out: numbers by tag, to
TensorBoard and Ignite's other loggers, to JSON lines, to ``trainer.state.metrics``, and as a history. It goes in one
direction: a *recording* (``_recording``) turns the updates of a trainer into *records* (``_record``), the *output*
(``_output``) gives each logger the records that it does not have yet, in names that it can take (``_names``), through
the one function that knows how it is told (``_writers``, ``_tensorboard``). Nobody calls back.

What must never happen: a rate is written that no update used; an update is written twice, or a tag changes its name;
a device is read where no event wants a value, or more than once for all values of an event; a logger that fails ends
the training, or keeps the others from going on; a recording keeps a dropped training alive.
"""

from ignite_lr.logger._json_lines import JSONLinesLogger
from ignite_lr.logger._logger import LRLogger

__all__ = ["JSONLinesLogger", "LRLogger"]
