"""What a user sees: TensorBoard itself, on the event files of a short run, in a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events, create_supervised_trainer
from ignite.handlers import TensorboardLogger
from torch import nn

from ignite_lr.clipper import GradNormClipper
from ignite_lr.logger import LRLogger
from ignite_lr.lr_finder import LRFinder

pytestmark = [
    pytest.mark.browser,
    # a process that is ended leaves its pipes to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1500,1250",
]


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a range test, a schedule, clipping and logging."""
    folder = tmp_path_factory.mktemp("events") / "demo"
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 16, 8, generator=generator)
    data = [(batch, batch.sum(1, keepdim=True).sin()) for batch in inputs]
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    groups = [
        {"params": model[0].parameters(), "name": "body"},
        {"params": model[2].parameters(), "name": "head", "lr": 0.02},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    trainer = create_supervised_trainer(model, optimizer, nn.MSELoss())
    clipper = GradNormClipper(optimizer, percentile=90.0, window=50)
    with TensorboardLogger(str(folder)) as logger:
        to_save = {"model": model, "optimizer": optimizer}
        with LRFinder().attach(trainer, to_save, num_iter=60, start_lr=1e-5, end_lr=1.0, logger=logger) as sweep:
            sweep.run(data)
        clipper.attach(trainer)
        logger.attach(trainer, LRLogger(optimizer, clipper=clipper, momentum=True), Events.ITERATION_COMPLETED(every=5))
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=400)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: scheduler.step())
        trainer.run(data, max_epochs=10)
    return folder


@pytest.fixture(scope="module")
def address(events: Path) -> Iterator[str]:
    """Where a TensorBoard of that folder answers."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(events.parent), "--port", "0", "--bind_all"]
    log = events.parent.parent / "tensorboard.log"
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + 90
            while not (found := re.search(r"http://\S+:(\d+)/", log.read_text())):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            url = f"http://127.0.0.1:{found[1]}"
            # it answers before it has read the events
            while b"grad_norm_histogram" not in urllib.request.urlopen(f"{url}/data/plugin/histograms/tags").read():
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*CHROMIUM_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield page
    finally:
        page.quit()


# what the page shows, through the shadow roots of its components too
TEXT = """
const texts = [];
const walk = (root) => root.querySelectorAll("*").forEach((element) => {
    if (element.shadowRoot) walk(element.shadowRoot);
    if (element.getClientRects().length && element.childElementCount === 0) texts.push(element.textContent.trim());
});
walk(document);
return texts.filter((text) => text);
"""


def wait_for(page: Any, *wanted: str) -> None:
    """Wait until the page shows each of these texts. A chart's title lies in two elements, split before the slash."""
    deadline = time.monotonic() + 30
    while not all(text in (shown := "".join(page.execute_script(TEXT))) for text in wanted):
        assert time.monotonic() < deadline, f"{wanted} not all in {shown}"
        time.sleep(0.3)


@pytest.mark.parametrize(
    ("tags", "charts"),
    [
        pytest.param("^lr/", ["lr/SGD/body", "lr/SGD/head"], id="lr"),
        pytest.param(
            "^clip/.*(norm|threshold|frequency)$",
            ["clip/grad_norm", "clip/clip_threshold", "clip/clip_frequency"],
            id="clip",
        ),
        pytest.param("^momentum/", ["momentum/SGD/body", "momentum/SGD/head"], id="momentum"),
        pytest.param("^range_test/", ["range_test/lr", "range_test/loss"], id="range test"),
        pytest.param("histogram", ["clip/grad_norm_histogram"], id="histogram"),
    ],
)
def test_the_time_series_page_shows_the_charts(browser: Any, address: str, tags: str, charts: list[str]) -> None:
    browser.get(f"{address}/?tagFilter={urllib.parse.quote(tags)}#timeseries")
    browser.refresh()  # a change behind the # alone loads nothing
    wait_for(browser, *charts)
    wait_for(browser, "demo")


def test_the_histogram_page_shows_the_unclipped_norms(browser: Any, address: str) -> None:
    browser.get(f"{address}/#histograms")
    browser.refresh()
    wait_for(browser, "clip/grad_norm_histogram", "demo")


def test_the_picture_of_the_docs(browser: Any, address: str, tmp_path: Path) -> None:
    """Also draws it anew where PICTURE names a file for it."""
    query = urllib.parse.quote("^(lr|clip)/")
    browser.set_window_size(1500, 1650)  # room for three rows of charts
    browser.get(f"{address}/?tagFilter={query}&smoothing=0#timeseries")
    browser.refresh()
    wait_for(browser, "clip/clip_frequency", "clip/grad_norm", "lr/SGD/body", "lr/SGD/head")
    time.sleep(3)  # the curves are drawn one by one
    picture = Path(os.environ.get("PICTURE", tmp_path / "tensorboard.png"))
    assert browser.save_screenshot(str(picture))
    assert picture.stat().st_size > 30_000
