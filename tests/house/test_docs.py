"""What is written is true: docstring examples run, so does the code of every page, and every public name is there."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import os
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import ignite_lr

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "ignite_lr").rglob("*.py")
)
FENCE = re.compile(r"^```(?P<language>\w*)(?P<rest>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> list[tuple[str, str]]:
    """The language with its options, and the code, of each fenced block."""
    text = path.read_text(encoding="utf-8")
    return [(match["language"] + match["rest"], match["code"]) for match in FENCE.finditer(text)]


def run_code(path: Path, namespace: dict[str, Any]) -> int:
    """Run the Python blocks of a page from top to bottom; line numbers in tracebacks are those of the page."""
    text = path.read_text(encoding="utf-8")
    count = 0
    for match in FENCE.finditer(text):
        if match["language"] == "python":
            before = text[: match.start("code")].count("\n")
            exec(compile("\n" * before + match["code"], str(path), "exec"), namespace)
            count += 1
    return count


def public() -> list[tuple[str, Any]]:
    """The public names, those of public modules included."""
    found = []
    for name in ignite_lr.__all__:
        item = getattr(ignite_lr, name)
        if inspect.ismodule(item):
            found += [(f"{name}.{inner}", getattr(item, inner)) for inner in item.__all__]
        else:
            found.append((name, item))
    return found


def members(kind: type) -> list[tuple[str, Any]]:
    """What a class of ours itself offers: methods and properties."""
    return [
        (f"{kind.__name__}.{name}", member)
        for name, member in vars(kind).items()
        if not name.startswith("_")
        and (inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod)))
    ]


DOCUMENTED = [
    (name, item)
    for name, item in public()
    # Python 3.10 takes the alias of a type for a class
    if (inspect.isclass(item) and not isinstance(item, types.GenericAlias)) or inspect.isfunction(item)
]
MEMBERS = [pair for _, item in DOCUMENTED if inspect.isclass(item) for pair in members(item)]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.filterwarnings("ignore:Run completed without loss diverging")
def test_examples_in_docstrings_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0


@pytest.mark.parametrize("item", [pytest.param(item, id=name) for name, item in DOCUMENTED + MEMBERS])
def test_every_public_name_is_documented(item: Any) -> None:
    # not inspect.getdoc, which falls back on the docstring of a base class
    assert (item.__doc__ or "").strip()


@pytest.mark.parametrize("item", [pytest.param(item, id=name) for name, item in DOCUMENTED])
def test_every_public_class_and_function_has_an_example(item: Any) -> None:
    if inspect.isclass(item) and issubclass(item, Exception):
        return  # nobody makes one by hand
    assert ">>> " in item.__doc__


@pytest.mark.parametrize("item", [pytest.param(item, id=name) for name, item in DOCUMENTED])
def test_every_argument_is_documented(item: Any) -> None:
    own = item.__init__ if inspect.isclass(item) and "__init__" in vars(item) else item
    if inspect.isclass(item) and (
        issubclass(item, Exception) or (own is item and not hasattr(item, "__dataclass_fields__"))
    ):
        return
    for name in inspect.signature(own).parameters:
        if name != "self":
            assert re.search(rf"^\s*\*{{0,2}}{name}\b[^\n]*:", item.__doc__, re.MULTILINE), name


def test_every_public_name_is_on_an_api_page() -> None:
    shown = set(
        re.findall(r"^::: ([\w.]+)$", "".join(p.read_text() for p in (DOCS / "api").glob("*.md")), re.MULTILINE)
    )
    for name, item in DOCUMENTED:
        # shown under the face of its room, which is where users import it from
        where = f"{item.__module__.partition('._')[0]}.{item.__qualname__}"
        assert {where, f"ignite_lr.{name}"} & shown, name


@pytest.mark.parametrize("page", [pytest.param(page, id=name_of(page)) for page in PAGES])
@pytest.mark.filterwarnings("ignore:Run completed without loss diverging")
def test_code_of_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "fully_shard" in page.read_text(encoding="utf-8") and not hasattr(torch.cpu.Stream, "record_event"):
        pytest.skip("FSDP2 on CPUs needs PyTorch 2.7")
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    module = types.ModuleType("__page__")  # a place where pickle and dataclasses find what the page defines
    monkeypatch.setitem(sys.modules, "__page__", module)
    try:
        run_code(page, vars(module))
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert not torch.distributed.is_initialized()


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="the table on the page is that of PyTorch 2.13")
def test_the_table_of_schedulers_is_what_its_code_prints(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = DOCS / "guides" / "schedulers.md"
    run_code(page, {})
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert printed
    assert "\n".join(printed) in page.read_text(encoding="utf-8")


def test_code_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pasted in order, with nothing given: the blocks bring their own imports."""
    monkeypatch.chdir(tmp_path)
    assert run_code(ROOT / "README.md", {}) > 5
    assert (tmp_path / "range_test.png").exists()


@pytest.mark.parametrize("page", [pytest.param(page, id=name_of(page)) for page in [*PAGES, ROOT / "README.md"]])
def test_code_that_is_not_run_says_so(page: Path) -> None:
    """Code of other libraries is marked ``py`` and has a title; everything marked ``python`` is run."""
    for options, code in blocks(page):
        language = options.split(" ")[0]
        assert language in ("python", "py", "bash", "sh", "text", "diff"), options
        if language == "py":
            assert re.search(r'title="(Before|examples/)', options), options
            if not code.startswith("--8<--"):
                compile(code, str(page), "exec")


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=name_of(page)) for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]]
)
def test_code_fits_the_column_of_a_page(page: Path) -> None:
    wide = [line for _, code in blocks(page) for line in code.splitlines() if len(line) > 88]
    assert wide == []


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=name_of(page)) for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]]
)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if not target.startswith(("http://", "https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", [pytest.param(page, id=name_of(page)) for page in PAGES])
def test_files_that_the_page_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"\b((?:examples|docs|benchmarks|tests)/[\w/]+\.(?:py|md))\b", text):
        assert (ROOT / path).exists(), path


def test_every_benchmark_is_on_the_page() -> None:
    folder = ROOT / "benchmarks"
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8") + (folder / "README.md").read_text(encoding="utf-8")
    sources = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.py")}
    # what another one starts need not be named
    started = {name for name in sources for other, source in sources.items() if other != name and f'"{name}"' in source}
    programs = {name for name, source in sources.items() if '"__main__"' in source}
    assert {name for name in programs - started if name not in page} == set()


def script(name: str) -> Any:
    """One of the scripts that draw for the pages, as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


PICTURES = script("make_pictures")


def test_the_picture_of_the_house_is_that_of_the_source() -> None:
    """If it is not: ``python docs/house.py``."""
    assert script("house").draw() == (DOCS / "images" / "house.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PICTURES.CURVES)
def test_the_curve_shows_what_the_page_says(name: str) -> None:
    curve = PICTURES.CURVES[name]
    curve.check(curve.run())


def test_the_charts_read_their_tables() -> None:
    charts = script("make_charts")
    page = charts.PAGE.read_text(encoding="utf-8")
    assert {"descent", "FastaiLRFinder", "Lightning", "torch-lr-finder"} <= set(charts.regrets(page))
    assert {"history only, every update", "OptimizerParamsHandler, every iteration"} <= set(charts.costs(page))


def test_every_picture_is_made_by_a_script() -> None:
    made = {f"{name}.png" for name in [*PICTURES.CURVES, *PICTURES.OTHERS]}
    made |= {f"{name}.png" for name in script("make_charts").CHARTS}
    made |= {"house.svg", "tensorboard.png"}  # by docs/house.py and tests/logger/test_tensorboard_page.py
    made |= {"run_page.png"}  # by the command of docs/guides/report.md
    assert {path.name for path in (DOCS / "images").iterdir()} == made
