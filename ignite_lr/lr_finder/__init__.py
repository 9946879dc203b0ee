"""The range test itself."""

from ignite_lr.lr_finder._finder import LRFinder

__all__ = ["LRFinder"]
