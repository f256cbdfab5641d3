"""The page in headless Chromium: nothing complains, nothing overflows, nothing is fetched."""

import pytest
from browser import CHROMIUM, Browser
from made_grid import write_events

from pretzel.ablation.report.grid_report import Report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]


@pytest.fixture
def page(output):
    for i, arm in enumerate("ab"):
        for seed in (0, 1, 2):
            curve = {step: 1.0 / (step + i + seed) for step in range(1, 300)}
            write_events(
                output / arm / f"seed{seed}", {"train/loss": curve, "train/other": curve},
                [("test/samples", 8, "red" if arm == "a" else "blue")],
            )  # fmt: skip
    Report(output, "pretzel compare runs").save()
    return output / "compare.html"


def test_the_page_in_a_browser(page, tmp_path):
    with Browser() as browser:
        for width, dark in ((1440, False), (1440, True), (390, False), (390, True)):
            browser.look(width, dark=dark)
            browser.open(page.as_uri())
            size = browser.ask("[document.documentElement.scrollWidth, innerWidth]")
            assert size[0] <= size[1] == width  # tables scroll by themselves
            browser.picture(tmp_path / f"{width}-{dark}.png", whole=True)
            paper = browser.ask("getComputedStyle(document.body).backgroundColor")
            assert (max(map(int, paper[4:-1].split(","))) < 60) == dark
        assert browser.ask("document.images.length") == 6
        assert browser.ask("[...document.images].every(i => i.complete && i.naturalWidth === 96)")
        # an arm's curves are hidden with its box
        hidden = "getComputedStyle(document.querySelector('.arm-1')).display"
        assert browser.ask(hidden) != "none"
        browser.ask("document.getElementById('show-1').click()")
        assert browser.ask(hidden) == "none"
        # a sheet grows by a click, and shrinks by another
        sheet = "document.querySelector('.sheets img').getBoundingClientRect().height"
        small = browser.ask(sheet)
        browser.ask("document.querySelector('.sheets label').click()")
        assert browser.ask(sheet) > 2 * small
        browser.ask("document.querySelector('.sheets label').click()")
        assert browser.ask(sheet) == small
        assert browser.complaints == []
        fetched = {r for r in browser.requests if not r.startswith("data:")}
        assert fetched <= {page.as_uri(), "about:blank"}


def test_contrast_of_text(page):
    """Every text against its background, in both schemes: at least WCAG's 4.5."""
    script = """(() => {
      const parse = c => c.match(/[\\d.]+/g).map(Number);
      const light = c => { const [r, g, b] = parse(c).map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b; };
      const under = e => { for (; e; e = e.parentElement) {
        const c = getComputedStyle(e).backgroundColor;
        if (parse(c)[3] !== 0) return c; } };
      const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      let worst = [99, ''];
      while (walker.nextNode()) { const e = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || e.closest('title')) continue;
        const s = getComputedStyle(e), ink = e.closest('svg') ? s.fill : s.color;
        const [a, b] = [light(ink), light(under(e))].sort((x, y) => y - x);
        const ratio = (a + .05) / (b + .05);
        if (ratio < worst[0]) worst = [ratio, walker.currentNode.data.slice(0, 60), ink]; }
      return worst; })()"""
    with Browser() as browser:
        for dark in (False, True):
            browser.look(1200, dark=dark)
            browser.open(page.as_uri())
            worst = browser.ask(script)
            assert worst[0] >= 4.5, worst
