"""The house stays as it was drawn: where device values may reach the host, and what an import costs.

Who imports whom is held by import-linter (``pyproject.toml``, ``make lint``).
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import ignite_lr

PACKAGE = Path(ignite_lr.__file__).parent
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
PUBLIC = {
    "ignite_lr": ignite_lr.__all__,
    "ignite_lr.schedules": ignite_lr.schedules.__all__,
    "ignite_lr.suggestion": ignite_lr.suggestion.__all__,
    "ignite_lr.lr_finder": ["LRFinder"],
    "ignite_lr.range_test": ["RangeTestResult"],
    "ignite_lr.clipper": ["ClipReport", "GradNormClipper"],
    "ignite_lr.logger": ["LRLogger"],
    "ignite_lr.scheduler": ["LRSchedulerHandler", "ScheduleLR"],
}


def tree(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_public_names_stay_where_they_are(module: str) -> None:
    imported = importlib.import_module(module)
    for name in PUBLIC[module]:
        assert hasattr(imported, name), name
        assert name in imported.__all__, name


@pytest.mark.parametrize("file", [file for file in FILES if file != "core/host.py"])
def test_only_host_reads_device_values(file: str) -> None:
    """A NumPy array's ``tolist`` looks the same from outside, so no file but ``host`` and the pictures has any."""
    reads = {"item", "cpu"} if "_matplotlib" in file or "_picture" in file else {"item", "cpu", "tolist"}
    calls = [
        f"line {node.lineno}: .{node.func.attr}()"
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in reads
    ]
    assert calls == []


def test_import_pulls_in_no_picture_library() -> None:
    code = "import sys, ignite_lr; print([m for m in ('matplotlib', 'bokeh', 'tensorboardX') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
