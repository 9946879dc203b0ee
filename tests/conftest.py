from __future__ import annotations

import os

# One thread a test process: sums keep their order, and parallel tests do not fight for cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

# A change is judged by the same cases every time; the long forms draw new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)
