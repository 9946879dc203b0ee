"""What the handler goes by that drives a scheduler of ours: whether somebody else has moved it."""

from __future__ import annotations

__all__ = ["Driven"]


class Driven:
    """A scheduler that says itself when it is moved by others than its handler, which looks before every update.

    Attributes:
        moves: steps that were not the handler's, states loaded, positions written by hand.
        loads: those of them that brought a state, or went back.
        driven: whether the next step is the handler's. That one follows an update, before which the handler has seen to
            it that the base rates are those known.
    """

    def __init__(self, position: int) -> None:
        self._position = position
        self.moves = 0
        self.loads = 0
        self.driven = False

    @property
    def last_epoch(self) -> int:
        """Index of the present update. Written by Ignite's ``LRScheduler`` and by hand."""
        return self._position

    @last_epoch.setter
    def last_epoch(self, position: int) -> None:
        self._moved_to(position)
        self._position = position

    def _moved_to(self, position: int, loaded: bool = False) -> None:
        """Somebody else than the handler moves it."""
        self.moves += 1
        if loaded or position < self._position:
            self.loads += 1
