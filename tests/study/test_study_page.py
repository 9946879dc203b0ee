"""The linked page of a study, in a real browser: hovering a trial lights its curve."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ignite_lr.study import Run, Settings, StudyResult, Trial
from ignite_lr.study._runs import trial_results

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
HOSTILE = "50 $$x^2$$ </script><script>window.broken = true</script> <b>bold</b> {{ 7 * 7 }}"


def result() -> StudyResult:
    settings = Settings("min", True)
    listed = [Trial(0.01, name=HOSTILE), Trial(0.1), Trial(1.0)]
    curve = tuple((0.5 + 2 * np.exp(-np.arange(40) / 8)).tolist())
    runs = [[Run("completed", curve, ((40, 0.6),))], [Run("completed", curve, ((40, 0.5),))],
            [Run("diverged", (2.5, 9.0))]]  # fmt: skip
    return StudyResult(trial_results(listed, [40] * 3, runs, settings), settings)


def test_the_file_needs_nothing_else(tmp_path: Path) -> None:
    text = result().to_html(tmp_path / "study.html", title="A title").read_text(encoding="utf-8")
    assert "<title>A title</title>" in text
    assert "<scriptsrc=" not in text.replace(" ", "")
    assert "<link" not in text


def test_without_bokeh_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "bokeh.models", None)
    with pytest.raises(ModuleNotFoundError, match="pip install bokeh"):
        result().to_html(tmp_path / "study.html")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Any]:
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip("needs Debian's chromium and chromium-driver")
    os.environ.setdefault("SE_OFFLINE", "true")  # selenium must not look for another driver
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                     "--window-size=1400,700", f"--user-data-dir={tmp_path / 'profile'}"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    started.set_script_timeout(30)
    yield started
    started.quit()


@pytest.mark.browser
def test_hovering_a_trial_lights_its_curve(driver: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    def wait(condition: str) -> None:
        driver.execute_async_script(
            "const done = arguments[0]; const look = () => {"
            f"if ({condition}) done(); else setTimeout(look, 20); }}; look();"
        )

    def hover(x: float, y: float) -> None:
        for step in (3, 0):
            mouse = ActionBuilder(driver, duration=50)
            mouse.pointer_action.move_to_location(round(x) - step, round(y))
            mouse.perform()

    driver.get(result().to_html(tmp_path / "study.html").as_uri())
    wait("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")
    points = "Bokeh.documents[0].get_model_by_name('trials')"
    curves = f"{points}.data_source.data"
    rest = driver.execute_script(f"return [...{curves}.width]")
    assert rest == [1.5, 4.0, 1.5]
    # where the first trial is on the screen, asked of the view that draws it
    x, y = driver.execute_script(
        f"const view = Bokeh.index.find_one({points}); const box = view.parent.el.getBoundingClientRect();"
        "return [box.x + view.glyph.sx[0], box.y + view.glyph.sy[0]];"
    )
    hover(x, y)
    wait(f"{curves}.width[0] === 4 && {curves}.alpha[0] === 1 && {curves}.alpha[2] < 0.2")
    hover(x, y + 60)
    wait(f"{curves}.width[0] === 1.5 && {curves}.alpha[2] === 0.6")
    assert driver.execute_script("return window.broken") is None
    assert [entry["message"] for entry in driver.get_log("browser") if entry["level"] != "INFO"] == []
