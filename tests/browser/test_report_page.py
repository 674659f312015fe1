"""The report in a real Chromium, headless: nothing is asked for, nothing goes wrong, filters work by keyboard, axe-core
finds nothing, in both themes, on a phone's width and a desk's.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fl.cli import invoke
from fl.report import write

CHROMIUM = shutil.which("chromium")
pytest.importorskip("axe_playwright_python", reason="pip install 'axe-playwright-python' drives a browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on the path (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    kinds = {"plain": [], "masked": ["--privacy", "secagg+"], "private": ["--privacy", "client-dp:epsilon=8"]}
    for name, options in kinds.items():
        for seed in range(2 if name == "plain" else 1):
            asked = [
                "run",
                "--data",
                "digits",
                "--model",
                "logistic",
                "--rounds",
                "2",
                "--clients",
                "5",
                *options,
            ]
            where = ["--seed", str(seed), "--output", str(folder / "runs" / f"{name}-{seed}"), "--json"]
            assert invoke([*asked, *where]) == 0
    (page,) = write([folder / "runs", Path("docs/results/fl.overhead.json")], folder / "report.html")
    return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


def opened(browser: Any, report: Path, wrong: list[str], scheme: str = "light", width: int = 1440) -> Any:
    """The page, drawn; what the browser complains of and whatever it asks for goes to `wrong`."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True)
    page = context.new_page()
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url == report.as_uri() else wrong.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_function("document.body.dataset.drawn === '1'")
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_it_draws_without_a_request_an_error_or_a_finding(
    browser: Any, report: Path, scheme: str, width: int
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    wrong: list[str] = []
    page = opened(browser, report, wrong, scheme, width)
    assert not wrong
    assert page.locator(".chart svg").count() == 4
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), "it scrolls sideways"
    found = Axe().run(page).response["violations"]
    assert not found, [(one["id"], one["nodes"][0]["html"]) for one in found]


def test_filters_choose_by_keyboard_what_charts_tables_and_cards_show(browser: Any, report: Path) -> None:
    wrong: list[str] = []
    page = opened(browser, report, wrong)
    rows, cards = page.locator("tr[data-row]:visible"), page.locator(".card:visible")
    assert (rows.count(), cards.count()) == (3, 3)
    page.locator("input[value='secagg+']").focus()
    page.keyboard.press("Space")
    page.wait_for_function("document.body.dataset.drawn === '2'")
    assert (rows.count(), cards.count()) == (2, 2)
    assert page.locator("#shown").inner_text() == "2 of 3 configurations are shown."
    page.locator("input[name=epsilon]").focus()
    page.keyboard.type("9")
    page.wait_for_function("document.body.dataset.drawn === '3'")
    assert rows.count() == 1
    assert page.locator("#rounds path[aria-label*='client-dp']").count()
    assert not page.locator("#rounds path[aria-label*='none']").count()
    assert page.locator("#seconds").inner_text().startswith("Nothing to draw")
    page.get_by_role("button", name="Show all").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.body.dataset.drawn === '4'")
    assert rows.count() == 3
    assert not wrong


def test_every_exact_value_is_reached_by_tab(browser: Any, report: Path) -> None:
    page = opened(browser, report, [])
    names = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        names.add(
            page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.id")
        )
    charts = {
        f"accuracy {rest}" for rest in ("and epsilon", "and bytes sent", "and seconds", "round by round")
    }
    assert charts | {"Exact values", "Verdicts on run records"} <= names


def test_hovering_tells_exact_values(browser: Any, report: Path) -> None:
    page = opened(browser, report, [])
    page.locator("#bytes path[aria-roledescription='point']").first.hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "bytes up" in page.locator("#vg-tooltip-element").inner_text()


def test_a_dark_page_prints_dark_on_light(browser: Any, report: Path) -> None:
    page = opened(browser, report, [], "dark")
    page.emulate_media(media="print", color_scheme="dark")
    told = """name => { const found = getComputedStyle(document.querySelector(name));
        return [found.color, found.fill, found.backgroundColor]; }"""
    dark, white = "rgb(26, 28, 32)", "rgb(255, 255, 255)"
    assert page.evaluate(told, "body")[::2] == [dark, white]
    assert page.evaluate(told, "#bytes svg text")[1] == dark


def test_a_long_name_of_data_fits_a_phone(browser: Any, report: Path) -> None:
    page = opened(browser, report, [], width=360)
    page.evaluate("document.querySelector('select[name=data]').options[0].textContent = 'x'.repeat(80)")
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), "it scrolls sideways"


def test_nine_stacks_of_layers_look_apart(browser: Any, report: Path, tmp_path: Path) -> None:
    before, opening, rest = report.read_text().partition('id="data">')
    told, closing, after = rest.partition("</script>")
    data = json.loads(told)
    data["cells"] = [
        {**data["cells"][0], "cell": at, "layers": f"stack {at}", "bytes_up": 100.0 + at} for at in range(9)
    ]
    boxes = "".join(f'<input type="checkbox" name="layers" value="stack {at}" checked>' for at in range(9))
    page = tmp_path / "nine.html"
    page.write_text(
        before.replace("</fieldset>", boxes + "</fieldset>") + opening + json.dumps(data) + closing + after
    )
    marks = opened(browser, page, []).locator("#bytes path[aria-roledescription='point']")
    looks = {
        (marks.nth(at).get_attribute("fill"), marks.nth(at).get_attribute("d")) for at in range(marks.count())
    }
    assert len(looks) == 9
