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

# file -> what it may import from the package; a handler and the rooms that only it uses stand together
MAY_IMPORT: dict[str, set[str]] = {
    # the ground: who counts, who reads, who draws
    "host": set(),
    "step_hooks": set(),
    "updates": {"host", "step_hooks"},
    "range_picture": set(),
    "plotting": {"range_picture"},
    "interactive": {"range_picture"},
    # the range test
    "lr_finder": {"curve", "range_test", "snapshot", "sweep", "sweep_plan", "tensor_copies", "updates"},
    "sweep": {
        "curve",
        "host",
        "range_test",
        "snapshot",
        "sweep_data",
        "sweep_plan",
        "sweep_state",
        "updates",
        "validation",
    },
    "sweep_plan": {"curve", "host"},
    "sweep_data": set(),
    "sweep_state": set(),
    "validation": {"snapshot", "sweep_data", "sweep_plan", "sweep_state"},
    "snapshot": {"capture", "tensor_copies"},
    "capture": {"tensor_copies"},
    "tensor_copies": set(),
    # its result
    "range_test": {"curve", "interactive", "plotting", "range_picture", "range_test_file", "suggestion"},
    "range_test_file": {"curve"},
    "curve": set(),
    "suggestion": {"curve_fall", "peer_rules", "rate_curve"},
    "curve_fall": {"rate_curve"},
    "peer_rules": {"rate_curve"},
    "rate_curve": set(),
    # schedules and what applies them
    "schedules": {"schedule_base", "schedule_joins", "warmup"},
    "schedule_base": {"plotting"},
    "schedule_joins": {"schedule_base"},
    "warmup": {"schedule_base", "schedule_joins"},
    "schedule_lr": {"host", "schedule_base", "schedule_joins"},
    "scheduler": {"schedule_base", "schedule_lr", "updates"},
    # clipping
    "clipper": {
        "clip_record",
        "clip_report",
        "clip_rule",
        "clip_state",
        "clip_update",
        "fused_step",
        "host",
        "plotting",
        "updates",
    },
    "clip_update": {"clip_record", "clip_rule", "clip_state", "fused_step", "grad_norm", "host"},
    "clip_record": {"clip_rule", "clip_state", "device_ring", "percentile"},
    "clip_report": set(),
    "clip_rule": set(),
    "clip_state": {"host"},
    "fused_step": {"grad_norm", "step_guard"},
    "step_guard": set(),
    "grad_norm": set(),
    "percentile": {"device_ring"},
    "device_ring": set(),
    # logging
    "logger": {
        "log_output",
        "log_settings",
        "log_watch",
        "plotting",
        "step_hooks",
        "update_history",
        "update_record",
        "update_track",
        "updates",
    },
    "log_output": {"update_record", "update_track", "writers"},
    "log_settings": set(),
    "log_watch": {"update_record", "update_track", "updates"},
    "update_history": {"update_record"},
    "update_track": {"update_record", "updates"},
    "update_record": {"host"},
    "writers": {"json_lines"},
    "json_lines": set(),
}
HANDLERS = {"lr_finder", "scheduler", "clipper", "logger"}
# rooms without a test file of their own -> the test file that enters them through the door users take
TESTED_IN = {
    "sweep": "lr_finder",
    "sweep_plan": "lr_finder",
    "sweep_data": "lr_finder",
    "sweep_state": "lr_finder",
    "validation": "lr_finder",
    "curve_fall": "suggestion",
    "peer_rules": "suggestion",
    "rate_curve": "suggestion",
    "schedule_base": "schedules",
    "schedule_joins": "schedules",
    "warmup": "schedules",
    "schedule_lr": "scheduler",
    "step_hooks": "updates",
    "log_output": "logger",
    "log_settings": "logger",
    "log_watch": "logger",
    "update_history": "update_record",
    "update_track": "update_record",
    "update_record": "logger",
    "writers": "logger",
    "json_lines": "logger",
}
# imported where used, so that the package works without Matplotlib
LAZY = {"plotting", "interactive"}


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


def reach(module: str) -> set[str]:
    """All that a module imports, straight or through others."""
    reached: set[str] = set()
    todo = [module]
    while todo:
        for imported in package_imports(list(ast.walk(tree(todo.pop())))) - reached:
            reached.add(imported)
            todo.append(imported)
    return reached


@pytest.mark.parametrize("handler", sorted(HANDLERS))
def test_handlers_never_reach_each_other(handler: str) -> None:
    assert not reach(handler) & HANDLERS


@pytest.mark.parametrize("module", sorted(MAY_IMPORT))
def test_no_import_runs_in_a_circle(module: str) -> None:
    assert module not in reach(module)


def test_tests_mirror_the_package() -> None:
    tests = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    assert {f"test_{TESTED_IN.get(module, module)}" for module in MAY_IMPORT} <= tests


def test_import_pulls_in_no_picture_library() -> None:
    code = "import sys, ignite_lr; print([m for m in ('matplotlib', 'bokeh', 'tensorboardX') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
