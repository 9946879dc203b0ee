"""The page of a whole run, written from a real one and opened in a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import create_supervised_trainer

from ignite_lr import GradNormClipper, LRFinder, LRLogger, LRStudy, run_report, trials

pytest.importorskip("bokeh")
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
HOSTILE = "50 $$x^2$$ </script><script>window.broken = true</script> <b>bold</b>"


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=1e-4)
    trainer = create_supervised_trainer(model, optimizer, torch.nn.functional.mse_loss)
    data = [(x, x.sum(1, keepdim=True)) for x in torch.randn(60, 8, 4)]
    to_save = {"model": model, "optimizer": optimizer}
    finder, study = LRFinder(), LRStudy()
    with finder.attach(trainer, to_save, num_iter=60, start_lr=1e-5, end_lr=10.0) as sweep:
        sweep.run(data)
    with study.attach(trainer, to_save, trials=trials.spread(1e-3, 1.0, n=3), num_updates=20) as engine:
        engine.run(data)
    clipper = GradNormClipper(optimizer)
    logger = LRLogger(optimizer, history=100, weight_decay=True, tag="<b>run</b>")
    clipper.attach(trainer)
    logger.attach(trainer)
    trainer.run(data)
    return {"range_test": finder.result, "study": study.result, "logger": logger, "clipper": clipper}


def test_each_part_alone_and_all_together(run: dict[str, Any], tmp_path: Path) -> None:
    for name, value in run.items():
        assert run_report(tmp_path / f"{name}.html", **{name: value}).stat().st_size > 100_000
    text = run_report(tmp_path / "all.html", **run, title=HOSTILE).read_text(encoding="utf-8")
    assert '<meta name="viewport"' in text
    assert "<script src=" not in text.replace(" ", "").replace("<scriptsrc", "<script src")
    for word in ("Range test", "Study", "Rates", "Gradient norms", "updates clipped", "suggestion"):
        assert word in text


def test_before_any_update_there_is_a_page_too(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    path = run_report(tmp_path / "p.html", logger=LRLogger(optimizer, history=3), clipper=GradNormClipper(optimizer))
    assert "Nothing was recorded" in path.read_text(encoding="utf-8")


def test_what_is_given_is_checked(tmp_path: Path, run: dict[str, Any]) -> None:
    for name in ("range_test", "study", "logger", "clipper"):
        with pytest.raises(TypeError, match=f"{name} must be a .* or None, got 3 of type int"):
            run_report(tmp_path / "p.html", **{name: 3})  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ValueError, match="one of range_test, study, logger and clipper must be given"):
        run_report(tmp_path / "p.html")
    with pytest.raises(TypeError, match="title must be"):
        run_report(tmp_path / "p.html", **run, title=3)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip("needs Debian's chromium and chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    os.environ.setdefault("SE_OFFLINE", "true")  # selenium must not look for another driver
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1280,900"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    shown = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    shown.set_script_timeout(30)
    yield shown
    shown.quit()


@pytest.mark.browser
def test_zooming_one_time_axis_zooms_all(run: dict[str, Any], driver: Any, tmp_path: Path) -> None:
    driver.get(run_report(tmp_path / "all.html", **run, title=HOSTILE).as_uri())
    wait = (
        "const done = arguments[0]; const look = () => window.Bokeh && Bokeh.documents.length"
        " && Bokeh.documents[0].is_idle ? done() : setTimeout(look, 20); look();"
    )
    driver.execute_async_script(wait)
    figures = (
        "const named = ['Learning rate', 'Weight decay', 'Gradient norm'];"
        "const over = Bokeh.documents[0].roots()[0].children.filter("
        "c => c.x_range && c.left.some(a => named.includes(a.axis_label)));"
    )
    assert driver.execute_script(f"{figures} return over.length") == 3  # rates, weight decay, norms
    driver.execute_script(f"{figures} over[0].x_range.start = 10; over[0].x_range.end = 20;")
    assert driver.execute_script(f"{figures} return over.map(f => [f.x_range.start, f.x_range.end])") == [[10, 20]] * 3
    assert driver.title == HOSTILE
    assert driver.execute_script("return window.broken ?? null") is None
    assert [entry["message"] for entry in driver.get_log("browser") if entry["level"] != "INFO"] == []
