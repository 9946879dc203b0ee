"""Handlers for PyTorch-Ignite trainers that find, schedule, protect and record the learning rate."""

__version__ = "0.1.0"
