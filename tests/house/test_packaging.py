"""The wheel, as a user installs it: into an environment of its own, away from the repository."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from public_paths import PUBLIC

import ignite_lr

ROOT = Path(__file__).parents[2]
SUFFIXES = (".py", ".typed")
IMPORTS = "\n".join(f"from {module} import {', '.join(names)}" for module, names in PUBLIC.items())
SMOKE = """
import pathlib, sys, torch, ignite_lr
from ignite.engine import create_supervised_trainer
from ignite_lr import GradNormClipper, LRFinder, LRLogger, LRSchedulerHandler, ScheduleLR, schedules

assert pathlib.Path(ignite_lr.__file__).is_relative_to(sys.prefix), ignite_lr.__file__
torch.manual_seed(0)
data = [(x, x.sum(1, keepdim=True)) for x in torch.randn(60, 8, 4)]
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
trainer = create_supervised_trainer(model, optimizer, torch.nn.functional.mse_loss)
finder = LRFinder()
with finder.attach(trainer, {"model": model, "optimizer": optimizer}, num_iter=60, start_lr=1e-5, end_lr=10.0) as sweep:
    sweep.run(data)
finder.result.plot().figure.savefig("range_test.png")
finder.result.to_html("range_test.html")
scheduler = ScheduleLR(optimizer, schedules.Linear(total_steps=100))
clipper = GradNormClipper(optimizer)
rates = LRLogger(optimizer, history=10)
for handler in (LRSchedulerHandler(scheduler), clipper, rates):
    handler.attach(trainer)
trainer.run(data)
assert scheduler.last_epoch == clipper.report().updates == 60
print(ignite_lr.__version__)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that was made from it."""
    folder = tmp_path_factory.mktemp("dist")
    # setuptools writes beside the sources, so it gets a copy: what git knows or would take
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    copy = tmp_path_factory.mktemp("source")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("docs/", "benchmarks/")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    # without isolation, so that nothing is downloaded
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(copy)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


def test_the_sdist_has_what_a_wheel_needs(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md"} <= names
    assert sources() == {name for name in names if name.startswith("ignite_lr/") and Path(name).suffix in SUFFIXES}


def sources() -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / "ignite_lr").rglob("*") if path.suffix in SUFFIXES}


def test_the_wheel_has_the_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
        [described] = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    assert {name for name in names if ".dist-info/" not in name} == sources()
    assert "License-Expression: BSD-3-Clause" in described
    assert re.search(r"^Requires-Dist: bokeh.*extra == [\"']html", described, re.MULTILINE)


def test_the_wheel_works_where_it_is_installed(built: tuple[Path, Path], tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    packages = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    # PyTorch and the rest come from the environment of the tests, so that nothing is downloaded; its own copy of this
    # package, if there is one, comes later on the path than the wheel
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*install, "--ignore-installed", str(built[1])], check=True, capture_output=True)
    result = subprocess.run(
        [python, "-I", "-c", f"{IMPORTS}\n{SMOKE}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ignite_lr.__version__


def test_the_version_is_the_same_everywhere(built: tuple[Path, Path]) -> None:
    version = ignite_lr.__version__
    assert built[1].name.startswith(f"ignite_lr-{version}-")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {re.escape(version)}$", citation, re.MULTILINE)
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_workflow_runs_the_corners_that_nox_has() -> None:
    assigned = next(
        node.value
        for node in ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CORNERS"
    )
    corners = {(name, versions[0]) for name, versions in ast.literal_eval(assigned).items()}
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert set(re.findall(r'corner: ([\w.-]+), python: "([\d.]+)"', workflow)) == corners


def test_hooks_and_tests_use_the_same_ruff() -> None:
    pinned = re.search(r"^ruff==(.*)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    assert f"rev: v{pinned[1]}\n" in (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
