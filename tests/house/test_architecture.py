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
from public_paths import PUBLIC

import ignite_lr

PACKAGE = Path(ignite_lr.__file__).parent
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
TESTS = Path(__file__).parents[1]
# what concerns no single room: the house itself, several rooms at work, a GPU, and what is no test
OTHERS = {"cuda", "data", "house", "together", "typing"}


def tree(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_stay_where_they_are(module: str) -> None:
    imported = importlib.import_module(module)
    for name in PUBLIC[module]:
        assert hasattr(imported, name), name
        assert name in imported.__all__, name


def test_every_public_name_is_promised() -> None:
    assert sorted(ignite_lr.__all__) == sorted(PUBLIC["ignite_lr"])


@pytest.mark.parametrize("room", ROOMS)
def test_a_face_says_what_its_room_is_for(room: str) -> None:
    assert (ast.get_docstring(tree(f"{room}/__init__.py")) or "").strip()
    # what is not behind the face is private; the files of core are what all others stand on
    files = {path.name for path in (PACKAGE / room).glob("*.py")} - {"__init__.py"}
    assert room == "core" or all(name.startswith("_") for name in files), files


def test_who_imports_whom() -> None:
    """The contracts of ``pyproject.toml``, which ``make lint`` checks too."""
    pytest.importorskip("importlinter", reason="its release with contracts for private files needs Python 3.11")
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    result = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def names_in(file: Path) -> set[str]:
    """Every name that a file writes, those in quotes included: rules are asked for by name."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def test_tests_have_the_rooms_of_the_package() -> None:
    assert {path.name for path in TESTS.iterdir() if any(path.glob("*.*"))} - OTHERS == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_are_tested_in_their_room(room: str) -> None:
    """Take a file of tests away, and a name is missing here."""
    written = set().union(*(names_in(file) for file in (TESTS / room).glob("test_*.py")))
    assert written
    assert set(PUBLIC.get(f"ignite_lr.{room}", ())) - written == set()


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
