"""The built pages, as a reader's browser shows them, on a wide screen and on a phone."""

from __future__ import annotations

import functools
import html.parser
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(DOCS).with_suffix(".html")) for path in DOCS.rglob("*.md"))
# what a browser loads without being asked: links that the reader may click are another thing
LOADED = re.compile(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(https?:)?//|<link\b[^>]*\bhref="(?:https?:)?//')
PHONE = 400


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    assert {str(path.relative_to(site)) for path in site.rglob("*.html")} - {"404.html"} == set(PAGES)


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert not LOADED.search(path.read_text(encoding="utf-8")), path
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", path.read_text(encoding="utf-8")), path


def test_no_role_of_sphinx_is_left(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r":(?:class|func|meth|mod|attr):", text), path


def test_no_page_shows_its_source(site: Path) -> None:
    """What the reader sees: no mark, no reference and no mathematics that nothing took up, no block without code."""
    for path in site.rglob("*.html"):
        shown = Shown(path.read_text(encoding="utf-8"))
        assert "" not in shown.code, path
        assert not [code for code in shown.code if re.match(r"-\s*-\s*8\s*<", code)], path
        text = shown.text
        for mark in (
            r"-\s*-\s*8\s*<\s*-",
            r"^\s*:::",
            r"\[[^\]\n]+\]\[[\w.]*\]",
            r"```",
            r"^\s*!!!",
            r"\$\$",
            r"\{:? ?[.#]\w",
            "\ufffd",
        ):
            assert not re.search(mark, text, re.MULTILINE), (path, mark)


def test_the_reference_shows_what_users_call(site: Path) -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html"))
    shown = {name.rpartition(".")[2] for name in re.findall(r'<h[2-6] id="(ignite_lr\.[\w.]+)"', pages)}
    assert {"attach", "apply", "plot", "report", "history", "state_dict", "load_state_dict"} <= shown
    assert {name for name in shown if name.startswith("_")} == set()
    assert not {"adopt_groups", "forget", "from_sweeps", "get_lr", "settle"} & shown


class Shown(html.parser.HTMLParser):
    """The text of a page without that in code, and the code of its blocks."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.code = "", []
        self.inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("pre", "code", "script", "style", "title"):
            self.inside.append(tag)
        if tag == "pre":
            self.code.append("")

    def handle_endtag(self, tag: str) -> None:
        if self.inside and tag == self.inside[-1]:
            self.inside.pop()
            if tag == "pre":
                self.code[-1] = self.code[-1].strip()

    def handle_data(self, data: str) -> None:
        if "pre" in self.inside:
            self.code[-1] += data
        if not {"code", "script", "style"} & set(self.inside):
            self.text += data


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"):
        options.add_argument(flag)
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def show(browser: Any, url: str, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width <= PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(url)
    # pictures further down are loaded when they come into view
    browser.execute_async_script(
        """const done = arguments[0];
        for (const image of document.images) image.loading = "eager";
        Promise.all([...document.images].map(image => image.complete ? 0 : new Promise(
            end => image.addEventListener("load", end) || image.addEventListener("error", end)
        ))).then(() => done());"""
    )


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the pipes of a process that has ended
@pytest.mark.parametrize("page", PAGES)
def test_page_in_a_browser(browser: Any, address: str, page: str) -> None:
    browser.get_log("browser")  # of the page before
    for width in (1280, PHONE):
        show(browser, f"{address}/{page}", width)
        errors = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        assert errors == []
        missing = "return [...document.images].filter(i => !i.naturalWidth).map(i => i.src)"
        assert browser.execute_script(missing) == []
        foreign = (
            "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(arguments[0]))"
        )
        assert browser.execute_script(foreign, address) == []
        assert browser.execute_script("return document.querySelector('h1').innerText.trim()")
        # tables and code scroll by themselves, the page does not
        assert browser.execute_script("return document.scrollingElement.scrollWidth") <= width
        cut = """return [...document.querySelectorAll('.md-content p, .md-content li, .md-content h1, .md-content h2')]
            .filter(e => e.getBoundingClientRect().right > window.innerWidth + 1 && !e.closest('table, pre'))
            .map(e => e.innerText)"""
        assert browser.execute_script(cut) == []
        if width > PHONE:
            scrolls = """return [...document.querySelectorAll('pre code, .md-typeset__scrollwrap')]
                .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => [e.scrollWidth, e.clientWidth, e.innerText])"""
            assert browser.execute_script(scrolls) == []
        else:
            # what a reader needs no glass for: 12 px, 10 px in code
            small = """return [...document.querySelectorAll('.md-content p, .md-content li, .md-content td, pre code')]
                .filter(e => parseFloat(getComputedStyle(e).fontSize) < (e.closest('pre') ? 10 : 12)).length"""
            assert browser.execute_script(small) == 0


# what people type, and the page that they should come to
SOUGHT = {
    "accumulation": "accumulation-amp.html",
    "EarlyStopping": "from-ignite.html",
    "W&B": "from-ignite.html",
    "MLflow": "from-ignite.html",
    "EMA": "from-ignite.html",
    "PiecewiseLinear": "from-ignite.html",
    "notebook": "report.html",
    "warmup": "playbook.html",
    "stability": "",
    "plateau": "schedulers.html",
}


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(("words", "page"), SOUGHT.items())
def test_search_finds_a_page(browser: Any, address: str, words: str, page: str) -> None:
    show(browser, f"{address}/index.html", 1280)
    found = browser.execute_async_script(
        """const done = arguments[1];
        document.querySelector('[data-md-toggle=search]').click();
        const field = document.querySelector('.md-search__input');
        field.focus();
        field.value = arguments[0];
        field.dispatchEvent(new KeyboardEvent('keyup', {key: 'n', bubbles: true}));
        field.dispatchEvent(new Event('input', {bubbles: true}));
        let left = 100;
        const look = () => {
            const hits = [...document.querySelectorAll('.md-search-result__link')].map(a => a.href);
            if (hits.length || !left--) done(hits); else setTimeout(look, 100);
        };
        look();""",
        words,
    )
    assert any(page in link for link in found), found
