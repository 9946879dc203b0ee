"""What every room stands on: one way to do each thing that several of them need.

In flow a trainer and its optimizers as the user made them. Out flow *updates*: ``step_hooks`` is the one pair of hooks
on an optimizer, ``updates`` counts what really was an update within the iterations of a trainer and calls whoever holds
a ``subscription``; handlers never look at an optimizer's step, or at Ignite's private parts (``engine``), themselves.
Beside that stand the one way from a device to the host (``host``), to check an argument (``arguments``), to read and
write a rate (``rates``), to look at anybody's scheduler (``schedulers``), to put a container's contents back
(``containers``), to take a handler off (``attachment``), to say something once, at the user's line (``notice``), and to
begin a picture (``figure``).

What must never happen: that an update is counted twice or missed, that a value is read from a device anywhere but in
``host``, that anything here keeps a dropped training alive, or knows a room that stands on it.
"""
