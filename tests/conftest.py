from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

# One thread a test process: sums keep their order, and parallel tests do not fight for cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Started in the background (nohup ... &), a shell has Ctrl-C ignored, and Python leaves it so: the tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch
from hypothesis import settings

# A change is judged by the same cases every time; the long forms draw new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    """Where one test has imported pyplot, the pictures of all later ones are pyplot's, which warns of the 21st."""
    yield
    if (pyplot := sys.modules.get("matplotlib.pyplot")) is not None:
        pyplot.close("all")
