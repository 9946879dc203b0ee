"""What a state is after a checkpoint."""

from __future__ import annotations

import io
from typing import Any

import torch


def through_file(state: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from a file, by what ``torch.load(weights_only=True)`` allows."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded
