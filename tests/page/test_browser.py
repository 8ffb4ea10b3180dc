"""The page as a browser has it: on a desk and on a phone, in light and in dark."""

import shutil

import pytest

from tests.page.made_up import nine_rows, run
from tfopt import page

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
ROWS = nine_rows()
NAMES = [f"{row['stage']}_{row['variant']}" for row in ROWS]
BY_SIZE = sorted(NAMES, key=lambda name: ROWS[NAMES.index(name)]["gzip_bytes"])
TABLE = """() => {
  const box = document.querySelector("table.sortable").closest(".scroll");
  return [box.scrollWidth, box.clientWidth];
}"""
# The least contrast of a text with what is behind it, by WCAG 2.
CONTRAST = """() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const shade = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let n = node; n; n = n.parentElement) {
      const colour = parse(getComputedStyle(n).backgroundColor);
      if (!getComputedStyle(n).backgroundColor.startsWith("rgb")) continue;
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  let least = [21, ""];
  for (const node of document.querySelectorAll("body *:not(script):not(style)")) {
    const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !node.checkVisibility()) continue;
    const svg = node instanceof SVGElement;
    const colour = getComputedStyle(node)[svg ? "fill" : "color"];
    if (!colour.startsWith("rgb") || parse(colour)[3] === 0) continue;
    const [a, b] = [shade(parse(colour)), shade(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < least[0]) least = [ratio, node.outerHTML.slice(0, 80)];
  }
  return least;
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browsed")
    page.write(*_arguments(folder), "tfopt --config=made_up.py")
    return (folder / "report.html").as_uri()


def _arguments(folder):
    content, splits = run(folder, rows=ROWS)
    return content, folder, splits


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        # Without the sandbox, which root and containers don't have.
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_it_opens(browser, address, width, scheme):
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    told, asked = [], []
    opened.on("console", lambda message: told.append(message.text))
    opened.on("pageerror", lambda error: told.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(address)
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    assert asked == [address]
    table, box = opened.evaluate(TABLE)
    assert table <= box or width == 400
    mistakes = opened.locator("table", has_text="was named")
    assert all(head.bounding_box()["width"] > 20 for head in mistakes.locator("th").all())

    def names():
        return opened.locator("table.sortable tbody a").all_inner_texts()

    def sort_of(head):
        return opened.locator("th", has=head).get_attribute("aria-sort")

    assert names() == NAMES
    by_size = opened.get_by_role("button", name="gzipped")
    by_size.click()
    assert (names(), sort_of(by_size)) == (BY_SIZE[::-1], "descending")
    by_size.click()
    assert (names(), sort_of(by_size)) == (BY_SIZE, "ascending")
    by_name = opened.get_by_role("button", name="artifact", exact=True)
    by_name.focus()
    opened.keyboard.press("Enter")
    assert names() == sorted(NAMES)
    opened.keyboard.press("Space")
    assert names() == sorted(NAMES, reverse=True)
    assert (sort_of(by_name), sort_of(by_size)) == ("descending", None)

    colour = "getComputedStyle(document.body).backgroundColor"
    before = opened.evaluate(colour)
    least, where = opened.evaluate(CONTRAST)
    assert least >= 4.5, where
    opened.get_by_role("button", name="Light / dark").click()
    assert opened.evaluate(colour) != before
    least, where = opened.evaluate(CONTRAST)
    assert least >= 4.5, where
    assert told == []
    opened.close()


def test_the_keyboard_reaches_the_report_first(browser, address):
    opened = browser.new_page()
    opened.goto(address)
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.textContent") == "Skip to the report"
    assert opened.get_by_role("main").count() == 1
    levels = opened.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((h) => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    opened.close()
