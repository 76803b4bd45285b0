"""The report in a real browser, from a file: nothing fetched, nothing thrown, nothing cut off."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import made_up_run
import made_up_selection
from attar.selection.fates import BELOW, KEPT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)
SELECTION = made_up_selection.selection(20_000)
DESKTOP, PHONE = (1280, 900), (390, 844)
LARGE_LETTERS_PX = 24
LEAST_CONTRAST, LEAST_CONTRAST_LARGE = 4.5, 3.0
"""WCAG 2.1, level AA, 1.4.3."""
LEAST_LETTERS_PX = 10.5
"""In a picture on a phone."""

COLOURS_JS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const channels = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const found = channels(getComputedStyle(e).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("script, style")) continue;
    const style = getComputedStyle(element);
    const drawn = element.closest("svg") ? style.fill : style.color;
    found.push({text: element.textContent.trim().slice(0, 40), size: parseFloat(style.fontSize),
                ink: channels(drawn), paper: behind(element)});
  }
  return found;
}"""
LABELS_JS = """(figure) => [...figure.querySelectorAll("svg text")]
  .filter((t) => t.checkVisibility() && t.textContent)
  .map((t) => { const b = t.getBoundingClientRect();
    return {text: t.textContent, left: b.left, top: b.top, right: b.right, bottom: b.bottom,
            letters: parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a}; })"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser on this machine (looked for {', '.join(BROWSERS)})")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=list(QUIET))
        yield started
        started.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    steps = made_up_run.write_run(out / "run")
    steps["kept"] = made_up_selection.write_selection(out / "run", SELECTION, "a calm sea. " * 60)
    return made_up_run.make_report(out / "report", steps)


class Visit:
    """One opened page, and everything it asked for or complained about."""

    def __init__(
        self,
        browser: Any,
        file: Path,
        size: tuple[int, int],
        scheme: Literal["light", "dark"] = "light",
    ) -> None:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        self.page = context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_page_opens_from_a_file_in_silence(
    browser: Any, page_file: Path, size: tuple[int, int], scheme: Literal["light", "dark"]
) -> None:
    visit = Visit(browser, page_file, size, scheme)
    assert visit.complaints == []
    outside = [url for url in visit.requests if not url.startswith("data:")]
    assert outside == [page_file.as_uri()]
    assert visit.page.locator("#models table").is_visible()
    assert visit.page.locator("#models tbody tr").count() == len(made_up_run.MODELS)
    assert visit.page.locator("#summary figure svg[role=img]:visible").count() == 2
    assert visit.page.evaluate("document.documentElement.scrollWidth") == size[0]


def test_the_first_screen_of_a_desktop_holds_sentence_figures_and_charts(
    browser: Any, page_file: Path
) -> None:
    page = Visit(browser, page_file, DESKTOP).page
    assert "faster" in page.locator("h1").inner_text()
    for figure in page.locator("#summary figure").all():
        box = figure.bounding_box()
        assert box["y"] + box["height"] <= DESKTOP[1]


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_words_in_a_picture_never_overlap_and_can_be_read(
    browser: Any, page_file: Path, size: tuple[int, int]
) -> None:
    page = Visit(browser, page_file, size).page
    for figure in page.locator("figure").all():
        labels = figure.evaluate(LABELS_JS)
        assert len(labels) >= 8
        for place, one in enumerate(labels):
            assert one["letters"] >= LEAST_LETTERS_PX, one["text"]
            for other in labels[place + 1 :]:
                wide = min(one["right"], other["right"]) - max(one["left"], other["left"])
                high = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
                assert wide <= 1 or high <= 3, (one["text"], other["text"])


def luminance(colour: list[int]) -> float:
    """Relative luminance of WCAG 2.1."""
    parts = [channel / 255 for channel in colour[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_of_level_aa(
    browser: Any, page_file: Path, scheme: Literal["light", "dark"]
) -> None:
    texts = Visit(browser, page_file, DESKTOP, scheme).page.evaluate(COLOURS_JS)
    assert len(texts) > 200
    for text in texts:
        low, high = sorted((luminance(text["ink"]), luminance(text["paper"])))
        is_large = text["size"] >= LARGE_LETTERS_PX
        least = LEAST_CONTRAST_LARGE if is_large else LEAST_CONTRAST
        assert (high + 0.05) / (low + 0.05) >= least, text


def test_light_and_dark_differ_and_the_button_turns_them_over(
    browser: Any, page_file: Path
) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = Visit(browser, page_file, DESKTOP, "light").page
    dark = Visit(browser, page_file, DESKTOP, "dark").page
    in_light, in_dark = light.evaluate(paper), dark.evaluate(paper)
    assert in_light != in_dark
    assert light.locator("#theme").inner_text() == "Dark"
    light.locator("#theme").click()
    assert light.evaluate(paper) == in_dark
    light.locator("#theme").click()
    assert light.evaluate(paper) == in_light


def test_a_keyboard_reaches_the_content_first_and_every_wide_table(
    browser: Any, page_file: Path
) -> None:
    page = Visit(browser, page_file, PHONE).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for box in page.locator(".scroll").all():
        assert box.get_attribute("tabindex") == "0"
        assert box.get_attribute("aria-label")
    headings = page.locator("h1, h2, h3").evaluate_all("all => all.map((h) => +h.tagName[1])")
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))


def test_a_long_fact_is_readable_on_a_phone(browser: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    spearman = {"value": 0.636, "low": 0.185, "high": 0.846, "n": 20}
    figures = {"offline": {"share_of_teacher": 0.468}}
    steps = {
        "kept": made_up_selection.write_selection(out, made_up_selection.selection(3000)),
        "predicted": made_up_run.write_step(out, "predicted", "score", figures),
        "proxy": made_up_run.write_step(out, "proxy", "proxy", {"spearman": spearman}),
    }
    tables = {"kept": {"scores": "predicted"}, "predicted": {"model": "proxy"}, "proxy": {}}
    file = made_up_run.make_report(tmp_path / "report", steps, {"name": "a", "steps": tables})
    page = Visit(browser, file, PHONE).page
    facts = page.locator("#selection .facts dt, #selection .facts dd")
    boxes = [fact.bounding_box() for fact in facts.all()]
    assert len(boxes) > 8
    assert max(box["x"] + box["width"] for box in boxes) <= PHONE[0]
    assert max(box["height"] for box in boxes) < 3 * min(box["height"] for box in boxes)


def test_printing_unfolds_everything(browser: Any, page_file: Path) -> None:
    page = Visit(browser, page_file, DESKTOP).page
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert page.locator("details:not([open])").count() == 0


def test_a_hostile_name_runs_nothing(browser: Any, tmp_path: Path) -> None:
    hostile = (
        "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    )
    models = {hostile: made_up_run.MODELS["teacher"], "\u202eنموذج": made_up_run.MODELS["student"]}
    folder = made_up_run.write_step(
        tmp_path / "run", "scores", "evaluate", made_up_run.evaluate_metrics(models)
    )
    file = made_up_run.make_report(tmp_path / "report", {"scores": folder}, {"name": hostile})
    visit = Visit(browser, file, PHONE)
    assert visit.complaints == []
    assert len(visit.requests) - sum(url.startswith("data:") for url in visit.requests) == 1
    assert "<script>document" in visit.page.locator("h1").inner_text()
    assert visit.page.title().startswith("<script>")
    assert visit.page.evaluate("document.documentElement.scrollWidth") == PHONE[0]


def _figures(page: Any) -> dict[str, str]:
    shown = page.locator("#selection [data-of]").evaluate_all(
        "all => all.map((e) => [e.dataset.of + (e.dataset.source ?? ''), e.textContent])"
    )
    return dict(shown)


def _counted(share: float, edges: list[float]) -> dict[str, str]:
    """What the page must say at a share, counted anew from every score at the nearest edge."""
    scored, free = SELECTION.scored, (SELECTION.fate == KEPT) | (SELECTION.fate == BELOW)
    kept = [free & (SELECTION.keys >= np.float32(edge)) for edge in edges]
    nearest = min(range(len(edges)), key=lambda k: abs(kept[k].mean() - share))
    is_kept, edge = kept[nearest], edges[nearest]
    assert abs(is_kept.mean() - share) <= 0.001
    tokens = scored.tokens * is_kept

    def percent(part: float, whole: float) -> str:
        return f"{100 * part / whole:.1f}\u00a0%"

    figures = {
        "kept": percent(is_kept.sum(), len(is_kept)),
        "below": percent(free.sum() - is_kept.sum(), len(is_kept)),
        "chunks": f"{is_kept.sum():,}, {percent(is_kept.sum(), len(is_kept))}",
        "tokens": f"{tokens.sum():,}, {percent(tokens.sum(), scored.tokens.sum())}",
        "cut": f"{edge:.3f}".replace("-", "\u2212"),
    }
    for number in range(len(made_up_selection.SOURCES)):
        own = scored.source == number
        figures[f"source_chunks{number}"] = f"{is_kept[own].sum():,}"
        figures[f"source_share{number}"] = percent(is_kept[own].sum(), own.sum())
        figures[f"source_after{number}"] = percent(tokens[own].sum(), tokens.sum())
    return figures


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_slider_counts_what_numpy_counts(
    browser: Any, page_file: Path, size: tuple[int, int]
) -> None:
    page = Visit(browser, page_file, size).page
    own, slider = _figures(page), page.locator("#selection input[type=range]")
    assert slider.input_value() == "500"
    heights = {page.locator("#selection").bounding_box()["height"]}
    edges = json.loads(page.locator(".explorer script").text_content())["edges"]
    for share in (0.1, 0.337, 0.5004, 0.9):
        slider.fill(str(round(1000 * share)))
        assert _figures(page) == (own if share == 0.5004 else _counted(share, edges))
        heights.add(page.locator("#selection").bounding_box()["height"])
    assert len(heights) == 1  # nothing jumps
    page.locator("#selection button").click()
    assert _figures(page) == own


def test_a_keyboard_moves_the_cut_and_says_where_it_is(browser: Any, page_file: Path) -> None:
    page = Visit(browser, page_file, DESKTOP).page
    slider, line = page.locator("#selection input[type=range]"), page.locator("#selection .cut")
    before = float(line.get_attribute("x1"))
    slider.focus()
    for _ in range(30):
        page.keyboard.press("ArrowLeft")
    assert slider.input_value() == "470"
    assert float(line.get_attribute("x1")) > before  # fewer are kept: a higher cut
    assert line.get_attribute("x1") == page.locator("#selection clipPath rect").get_attribute("x")
    assert slider.get_attribute("aria-valuetext").startswith("47.0 percent")
    assert page.get_by_label("Share to keep (α)").count() == 1


def test_without_scripts_the_recipes_own_figures_stand(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert not page.locator("#selection input").is_visible()
    text = page.locator("#selection").inner_text()
    assert "10,000, 50.0\u00a0%" in text
    assert "Figures follow the slider" not in text


def test_hostile_chunks_run_nothing(browser: Any, tmp_path: Path) -> None:
    folder = made_up_selection.write_selection(
        tmp_path, made_up_selection.selection(2000), made_up_selection.HOSTILE
    )
    file = made_up_run.make_report(tmp_path / "report", {"kept": folder}, {"name": "hostile"})
    visit = Visit(browser, file, PHONE)
    visit.page.locator("details").evaluate_all("all => all.forEach((d) => { d.open = true; })")
    assert visit.complaints == []
    assert visit.page.title() == "hostile · attar report"
    assert "</script><script>" in visit.page.locator(".texts").first.inner_text()
    assert visit.page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
