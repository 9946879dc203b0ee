"""The rates that updates really used, in every logger."""

from ignite_lr.logger._json_lines import JSONLinesLogger
from ignite_lr.logger._logger import LRLogger

__all__ = ["JSONLinesLogger", "LRLogger"]
