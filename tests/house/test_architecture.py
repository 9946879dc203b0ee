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
from ignite.engine import Engine
from public_paths import PUBLIC

import ignite_lr

PACKAGE = Path(ignite_lr.__file__).parent
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
TESTS = Path(__file__).parents[1]
# what concerns no single room: the house itself, several rooms at work, a GPU, and what is no test
OTHERS = {"__pycache__", "cuda", "data", "house", "together", "typing"}


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


def _value_of_a_device(node: ast.expr, tensors: set[str]) -> bool:
    """Whether an expression may be a tensor, as far as the text alone shows it.

    That is what the code calls a tensor in an annotation or makes with torch; and what a parameter group holds under a
    name, which a capturable optimizer keeps on its device.
    """
    for part in ast.walk(node):
        if isinstance(part, ast.Subscript) and _names_an_option(part):
            return True
        if isinstance(part, ast.Name) and part.id in tensors:
            return True
        if isinstance(part, ast.Call) and ast.unparse(part.func).startswith("torch."):
            return True
        if isinstance(part, ast.Attribute) and part.attr in {"grad", "grad_scale", "found_inf"}:
            return True
    return False


def _names_an_option(node: ast.Subscript) -> bool:
    of_group = "group" in ast.unparse(node.value)
    return of_group and (not isinstance(node.slice, ast.Constant) or isinstance(node.slice.value, str))


def _tensors_of(function: ast.FunctionDef) -> set[str]:
    """Names that stand for tensors in a function: annotated so, or made by torch."""
    arguments = function.args
    names = {
        one.arg
        for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        if one.annotation is not None and ast.unparse(one.annotation) == "torch.Tensor"
    }
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made = ast.unparse(node.value.func)
            if made.startswith("torch.") and not made.startswith(("torch.is_", "torch.cuda.", "torch.get_")):
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def reads_in(code: ast.AST) -> list[str]:
    """``float()``, ``int()`` and ``bool()`` of what may be a tensor."""
    found = set()
    for scope in ast.walk(code):
        tensors = _tensors_of(scope) if isinstance(scope, ast.FunctionDef) else set()
        found |= {
            f"line {node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(scope)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"float", "int", "bool"}
            and any(_value_of_a_device(argument, tensors) for argument in node.args)
        }
    return sorted(found)


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        pytest.param("float(group[name])", True, id="option of a group"),
        pytest.param("[float(g['lr']) for g in optimizer.param_groups]", False, id="not to be seen"),
        pytest.param("int(optimizer.param_groups[0]['step'])", True, id="option of the first group"),
        pytest.param("def f(x: torch.Tensor): return float(x)", True, id="annotated"),
        pytest.param("def f(x):\n    y = torch.sqrt(x)\n    return int(y.sum())", True, id="made by torch"),
        pytest.param("float(np.median(values))", False, id="an array"),
        pytest.param("float(groups[0])", False, id="a number in a list"),
    ],
)
def test_conversions_of_tensors_are_seen(code: str, seen: bool) -> None:
    assert bool(reads_in(ast.parse(code))) is seen


@pytest.mark.parametrize("file", [file for file in FILES if file != "core/host.py"])
def test_only_host_converts_tensors(file: str) -> None:
    assert reads_in(tree(file)) == []


PRIVATE = {
    name
    for name in (*vars(Engine), *vars(Engine(lambda engine, batch: None)), "_parent")
    if name.startswith("_") and not name.startswith("__")
}


@pytest.mark.parametrize("file", [file for file in FILES if file != "core/engine.py"])
def test_only_engine_touches_the_private_parts_of_ignite(file: str) -> None:
    """As attributes, as names in ``getattr`` and the like, as methods that Ignite would call."""
    touched = [
        f"line {node.lineno}: {name}"
        for node in ast.walk(tree(file))
        for name in [getattr(node, "attr", None) or getattr(node, "value", None) or getattr(node, "name", None)]
        if isinstance(node, (ast.Attribute, ast.Constant, ast.FunctionDef))
        and isinstance(name, str)
        and name in PRIVATE
    ]
    assert touched == []


HEAVY = ("torch._dynamo", "matplotlib", "bokeh", "tensorboardX", "sklearn")
LOADED = f"""
import sys, time
import torch, ignite.handlers
before = set(sys.modules)
start = time.process_time()
import ignite_lr
print(time.process_time() - start)
print([name for name in {HEAVY!r} if name in sys.modules and name not in before])
"""


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_is_light() -> None:
    """At most 0.05 s on top of torch and Ignite, and nothing that takes its time to load."""
    seconds, loaded = run_python(LOADED).splitlines()
    assert loaded == "[]"
    assert float(seconds) < 0.05


def test_no_room_loads_what_is_heavy() -> None:
    names = "\n".join(f"ignite_lr.{name}" for name in ignite_lr.__all__)
    loaded = f"print([name for name in {HEAVY!r} if name in sys.modules and name not in before])"
    assert run_python(f"{LOADED}{names}\n{loaded}").splitlines()[1:] == ["[]", "[]"]


def test_every_public_name_has_a_room() -> None:
    assert {*ignite_lr._ROOMS, *(ignite_lr._FACES & {*ignite_lr.__all__})} == {*ignite_lr.__all__}
    assert {*ignite_lr.__all__} <= {*dir(ignite_lr)}
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = ignite_lr.nonsense
