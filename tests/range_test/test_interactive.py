from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ignite_lr.range_test._bokeh import range_test_html
from ignite_lr.range_test._picture import RangeTestPicture

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
HOSTILE = "50 $$x^2$$ </script><script>window.broken = true</script> <b>bold</b> {{ 7 * 7 }}"


def picture(**changes: Any) -> RangeTestPicture:
    lrs = np.geomspace(1e-5, 1.0, 100)
    smoothed = 2.0 - np.linspace(0, 1.5, 100)
    values: dict[str, Any] = {
        "lrs": [lrs.tolist()],
        "losses": (smoothed + 0.1 * np.sin(np.arange(100))).tolist(),
        "smoothed": smoothed.tolist(),
        "loss_name": "Loss",
        "log_lr": True,
        "default": "descent",
        "suggestions": {"descent": [1e-2], "valley": [3e-3], "slide": None},
        "confidence": 0.9,
        "interval": None,
        "unstable_lr": 0.7,
        "sweeps": [],
        "note": "100 points",
        **changes,
    }
    return RangeTestPicture(**values)


def several() -> RangeTestPicture:
    lrs = np.geomspace(1e-5, 1.0, 100)
    return picture(
        lrs=[lrs.tolist(), (lrs / 10).tolist()],
        suggestions={"descent": [1e-2, 1e-3], "valley": [3e-3, 3e-4]},
        interval=(5e-3, 2e-2),
        sweeps=[(lrs.tolist(), np.linspace(2, 1, 100).tolist()), (lrs[:90].tolist(), np.linspace(3, 2, 90).tolist())],
    )


@pytest.mark.parametrize(
    "drawn",
    [
        pytest.param(picture(), id="plain"),
        pytest.param(several(), id="groups and repeats"),
        pytest.param(picture(log_lr=False, loss_name="Validation loss"), id="linear"),
        pytest.param(picture(suggestions={"descent": None}, unstable_lr=None), id="no suggestion"),
        pytest.param(picture(losses=[float("inf")] * 100, smoothed=[float("nan")] * 100), id="nothing finite"),
        pytest.param(picture(lrs=[], losses=[], smoothed=[], suggestions={}, unstable_lr=None), id="no points"),
    ],
)
def test_the_file_needs_nothing_else(drawn: RangeTestPicture, tmp_path: Path) -> None:
    path = range_test_html(drawn, tmp_path / "plot.html", title="A title")
    text = path.read_text(encoding="utf-8")
    assert "<title>A title</title>" in text
    head = text.replace(" ", "")
    assert "<scriptsrc=" not in head
    assert "<link" not in text
    assert '<meta name="viewport" content="width=device-width' in text


def test_without_bokeh_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("bokeh", "bokeh.models", "bokeh.plotting", "bokeh.embed", "bokeh.resources"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="pip install bokeh"):
        range_test_html(picture(), tmp_path / "plot.html")
    assert list(tmp_path.iterdir()) == []


class Page:
    """A file in headless Chromium, without a network."""

    def __init__(self, profile: Path) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for argument in (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1200,700",
            f"--user-data-dir={profile}",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
        self.driver.set_script_timeout(30)

    def open(self, path: Path) -> None:
        self.driver.get(path.as_uri())
        self.wait("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")

    def wait(self, condition: str) -> None:
        self.driver.execute_async_script(
            "const done = arguments[0]; const look = () => {"
            f"if ({condition}) done(); else setTimeout(look, 20); }}; look();"
        )

    def ask(self, expression: str) -> Any:
        return self.driver.execute_script(
            "const plot = window.Bokeh ? Bokeh.documents[0].roots()[0] : null;"
            "const all = (name) => { const found = []; const walk = (node) => {"
            " for (const e of node.querySelectorAll('*')) {"
            "  if (e.classList.contains(name)) found.push(e);"
            "  if (e.shadowRoot) walk(e.shadowRoot); } }; walk(document); return found; };"
            f"return {expression};"
        )

    def box(self, name: str, index: int = 0) -> dict[str, float]:
        found: dict[str, float] = self.ask(f"all('{name}')[{index}].getBoundingClientRect().toJSON()")
        return found

    def mouse(self) -> Any:
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        chain = ActionChains(self.driver, duration=50)
        chain.w3c_actions = ActionBuilder(self.driver, duration=50)
        return chain.w3c_actions

    def requests(self) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip("needs Debian's chromium and chromium-driver")
    os.environ.setdefault("SE_OFFLINE", "true")  # selenium must not look for another driver
    shown = Page(tmp_path_factory.mktemp("profile"))
    yield shown
    shown.driver.quit()


@pytest.mark.browser
def test_hover_zoom_and_hide_in_a_browser(page: Page, tmp_path: Path) -> None:
    page.open(range_test_html(picture(), tmp_path / "plot.html", title=HOSTILE))

    frame = page.box("bk-CartesianFrame")
    x, y = frame["x"] + frame["width"] * 0.4, frame["y"] + frame["height"] * 0.5
    mouse = page.mouse()
    mouse.pointer_action.move_to_location(int(x) - 5, int(y))
    mouse.pointer_action.move_to_location(int(x), int(y))
    mouse.perform()
    text = page.ask(
        "all('bk-Tooltip').map(e => [...e.shadowRoot.querySelectorAll('div')].map(d => d.textContent)).join()"
    )
    assert "lr: 1.05e-3 loss: 1.4685 smoothed: 1.3939" in " ".join(text.split())

    before = page.ask("[plot.x_range.start, plot.x_range.end]")
    assert before == pytest.approx([1e-5, 1.0])
    mouse = page.mouse()
    mouse.pointer_action.move_to_location(int(x), int(y))
    mouse.pointer_action.pointer_down()
    mouse.pointer_action.move_to_location(int(x) + 120, int(y) + 90)
    mouse.pointer_action.pointer_up()
    mouse.perform()
    page.wait("Bokeh.documents[0].roots()[0].x_range.start > 1.1e-5")
    zoomed = page.ask("[plot.x_range.start, plot.x_range.end]")
    assert before[0] < zoomed[0] < zoomed[1] < before[1]

    labels = page.ask("all('bk-label').map(e => e.textContent)")
    assert labels[:3] == ["raw", "smoothed", "suggested: 1.00e-02 (confidence 0.90)"]
    assert page.ask("plot.renderers[0].visible") is True
    item = page.box("bk-item", labels.index("raw"))
    mouse = page.mouse()
    mouse.pointer_action.move_to_location(int(item["x"] + 30), int(item["y"] + item["height"] / 2))
    mouse.pointer_action.click()
    mouse.perform()
    page.wait("Bokeh.documents[0].roots()[0].renderers[0].visible === false")
    assert page.ask("plot.renderers[1].visible") is True

    hidden = labels.index("suggested: 1.00e-02 (confidence 0.90)")
    item = page.box("bk-item", hidden)
    mouse = page.mouse()
    mouse.pointer_action.move_to_location(int(item["x"] + 30), int(item["y"] + item["height"] / 2))
    mouse.pointer_action.click()
    mouse.perform()
    page.wait("Bokeh.documents[0].roots()[0].renderers.some(r => r.glyph.type === 'Ray' && !r.visible)")
    assert page.ask("plot.renderers.filter(r => !r.visible).map(r => r.glyph.type)") == ["Line", "Scatter", "Ray"]

    assert page.driver.title == HOSTILE
    assert page.ask("window.broken ?? null") is None
    assert page.ask("plot.toolbar.tools.map(tool => tool.type)") == [
        "PanTool",
        "BoxZoomTool",
        "WheelZoomTool",
        "ResetTool",
        "SaveTool",
        "HoverTool",
    ]
    assert page.complaints() == []
    assert [url for url in page.requests() if url.startswith(("http", "ws", "ftp"))] == []


@pytest.mark.browser
@pytest.mark.parametrize(
    "drawn", [several(), picture(suggestions={"descent": None}, log_lr=False)], ids=["all", "none"]
)
def test_other_pictures_open_without_complaints(page: Page, drawn: RangeTestPicture, tmp_path: Path) -> None:
    page.open(range_test_html(drawn, tmp_path / "plot.html"))
    assert page.driver.title == "Range test"
    image = base64.b64decode(page.driver.get_screenshot_as_base64())
    assert len(image) > 20_000
    assert page.complaints() == []
