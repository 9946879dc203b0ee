"""The house stays as it was drawn: who imports whom, and where device values may reach the host."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ignite_lr

PACKAGE = Path(ignite_lr.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))

# file -> what it may import from the package
MAY_IMPORT: dict[str, set[str]] = {
    "lr_finder": {"range_test", "snapshot", "updates", "host"},
    "range_test": {"suggestion", "plotting"},
    "suggestion": set(),
    "snapshot": set(),
    "schedules": {"plotting"},
    "scheduler": {"updates"},
    "updates": {"host"},
    "grad_norm": set(),
    "percentile": set(),
    "clipper": {"grad_norm", "percentile", "updates", "host", "plotting"},
    "logger": {"updates", "host", "plotting"},
    "host": set(),
    "plotting": set(),
}
# imported where used, so that the package works without Matplotlib
LAZY = {"plotting"}


def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def package_imports(nodes: list[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "ignite_lr":
            found |= {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ignite_lr."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add(node.module or "__init__")
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("ignite_lr.")}
    return found


def test_every_module_has_its_place_in_the_table() -> None:
    assert set(MODULES) - {"__init__"} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", sorted(MAY_IMPORT))
def test_imports_follow_the_table(module: str) -> None:
    assert package_imports(list(ast.walk(tree(module)))) <= MAY_IMPORT[module]


@pytest.mark.parametrize("module", sorted(MAY_IMPORT))
def test_pictures_are_imported_where_they_are_used(module: str) -> None:
    assert not package_imports(list(tree(module).body)) & LAZY


@pytest.mark.parametrize("module", [module for module in MODULES if module != "host"])
def test_only_host_reads_device_values(module: str) -> None:
    """A NumPy array's ``tolist`` looks the same from outside, so no module but ``host`` and the pictures has any."""
    reads = {"item", "cpu"} if module == "plotting" else {"item", "cpu", "tolist"}
    calls = [
        f"line {node.lineno}: .{node.func.attr}()"
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in reads
    ]
    assert calls == []


def test_every_module_has_a_test_of_its_own() -> None:
    tests = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    assert {f"test_{module}" for module in MAY_IMPORT} <= tests


def test_import_pulls_in_no_picture_library() -> None:
    code = "import sys, ignite_lr; print([m for m in ('matplotlib', 'bokeh', 'tensorboardX') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
