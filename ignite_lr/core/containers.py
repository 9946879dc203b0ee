"""Put the contents of a container back, in place.

Containers keep their identity, so that whoever holds one sees the old contents, and they are never empty in between:
another thread that reads them in this moment finds old things or new things, but something.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from operator import is_
from typing import Any

__all__ = ["put_back"]


def put_back(live: Any, before: Any) -> bool:
    """Give a container the contents of ``before``, a plain one of its kind, by the methods of the kind itself.

    Subclasses have ``__setitem__`` and the like with effects of their own, which must not happen once more.

    Returns:
        whether it had others.
    """
    if isinstance(live, dict):
        return _put_back_dict(live, before)
    if isinstance(live, deque):
        if len(live) == len(before) and all(map(is_, live, before)):
            return False
        deque.extend(live, before)
        while len(live) > len(before):
            deque.popleft(live)
    elif isinstance(live, set):
        if set.__len__(live) == len(before) and set.issuperset(live, before):
            return False
        set.update(live, before)
        set.intersection_update(live, before)
    elif isinstance(live, list):
        if list.__len__(live) == len(before) and all(map(is_, list.__iter__(live), before)):
            return False
        list.__setitem__(live, slice(None), before)
    else:  # bytearray, array.array
        if len(live) == len(before) and live == before:
            return False
        live[:] = before
    return True


def _put_back_dict(live: dict[Any, Any], before: dict[Any, Any]) -> bool:
    kind: Any = OrderedDict if isinstance(live, OrderedDict) else dict
    same_keys = len(live) == len(before) and all(map(is_, kind.__iter__(live), before))
    if same_keys and all(map(is_, kind.values(live), before.values())):
        return False
    for key, value in before.items():
        kind.__setitem__(live, key, value)
    for key in [key for key in kind.__iter__(live) if key not in before]:
        kind.__delitem__(live, key)
    if not all(map(is_, kind.__iter__(live), before)):
        for key, value in before.items():  # each to the end in turn, which makes the old order
            kind.pop(live, key)
            kind.__setitem__(live, key, value)
    return True
