"""The built documentation: no page loads anything from another host, in text and in a real Chromium; no console error;
nothing scrolls sideways on a phone; links between pages are the strict build's own check.
"""

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium")
LOADS = re.compile(r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=[\"']?([^\"' >]+)")
LINKS = re.compile(r"<link\b[^>]*>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it: warnings are errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def loaded(page: str) -> list[str]:
    """Addresses that a browser fetches by itself when it opens a page."""
    links = [
        link
        for link in LINKS.findall(page)
        if re.search(r"rel=[\"']?(stylesheet|icon|preload|preconnect)", link)
    ]
    return LOADS.findall(page) + [
        href for link in links for href in re.findall(r"href=[\"']?([^\"' >]+)", link)
    ]


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    seen = {address for page in pages for address in loaded(page.read_text())}
    assert seen, "no address was found: has the form of the pages changed?"
    assert [address for address in seen if re.match(r"(https?:)?//", address)] == []
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", sheet.read_text()), sheet.name


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path (Debian: apt-get install chromium)")
@pytest.mark.parametrize("scheme,width", [("light", 360), ("dark", 1440)])
def test_pages_draw_and_search_without_a_request_elsewhere(address: str, scheme: str, width: int) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'axe-playwright-python'")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}).new_page()
        wrong: list[str] = []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(address) else wrong.append(asked.url))
        for name in ("index.html", "threat-model.html"):
            page.goto(f"{address}/{name}", wait_until="networkidle")
            assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), (
                "it scrolls sideways"
            )
        page.goto(f"{address}/index.html?q=threshold", wait_until="networkidle")
        page.locator(".md-search-result__item").first.wait_for(state="attached")
        browser.close()
    assert wrong == []
