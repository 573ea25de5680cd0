"""The report in a real headless browser: clicks, keys, themes, paper, and what a screen reader is told."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmpt_bench.records.store import Store
from mmpt_bench.report import write
from mmpt_bench.report.content import gather
from support.paths import ROOT
from support.synthetic import failed, keep, recipe, record, samples, store_in, task

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
WITHOUT = [
    *([] if importlib.util.find_spec("playwright") else ["`pip install playwright`"]),
    *([] if BROWSER else ["a Chromium on the path (`apt-get install chromium`)"]),
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(WITHOUT), reason=f"needs {' and '.join(WITHOUT)}"),
]
TASKS = {name: task(name, name.title()) for name in ("colours", "shapes")}
ASKED = {"colours": samples(120), "shapes": samples(24)}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = store_in(tmp_path_factory.mktemp("store"))
    for seed in range(2):
        for method, right in (("mmpt", "1101"), ("full", "11110"), ("lora", "110")):
            for name in TASKS:
                _add(store, name, right[seed % 2 :] + right, method, seed)
    for name in TASKS:
        _add(store, name, "10-", "frozen", 0)
    _add(store, "colours", "1", "vpt", 0)
    keep(store, failed(recipe("prefix", 0), reason="<script>window.ran = true</script>"))
    path = store.root / "report.html"
    path.write_bytes(write.page(gather(store, TASKS, n_resamples=200), store).data)
    return path


def test_packed_parts_are_unpacked_before_anything_else(
    browser: Any, report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(report.parent)
    content = gather(store, TASKS, n_resamples=200)
    whole = len(report.read_bytes())
    monkeypatch.setattr(write, "MAX_BYTES", 7 * whole // 10)
    smaller = tmp_path / "smaller.html"
    smaller.write_bytes(write.page(content, store).data)
    assert smaller.read_bytes().count(b"data-part=") > 2
    context = browser.new_context()
    texts = []
    for path in (report, smaller):
        opened = context.new_page()
        opened.goto(path.as_uri())
        opened.wait_for_selector("table.detail.stacked", state="attached")
        texts.append(opened.inner_text("main"))
    assert texts[0] == texts[1]
    opened.locator("#lb0 a.cell").nth(1).click()
    opened.locator("#cell-actions button").first.click()
    assert opened.locator("#raw tbody tr").count() > 0
    assert opened.locator("[data-figure]").first.get_attribute("href").startswith("blob:")
    context.close()


def _add(store: Store, name: str, right: str, method: str, seed: int) -> None:
    keep(store, record(store, TASKS[name], ASKED[name], right, recipe(method, seed)))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """Opens the report; afterwards nothing may have been fetched, and nothing may have gone wrong."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    faults: list[str] = []
    opened.on("console", lambda message: faults.append(message.text))
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("request", lambda r: faults.append(r.url[:80]) if not r.url.startswith(("data:", "blob:")) else None)
    opened.goto(report.as_uri())
    faults.remove(report.as_uri()[:80])
    yield opened
    assert not opened.evaluate("window.ran")
    context.close()
    assert faults == []


def labels(page: Any) -> list[str]:
    return list(page.locator("#lb0 tbody tr:not([hidden]) th").all_inner_texts())


def test_sorting_by_click_and_by_key(page: Any) -> None:
    head = page.locator("#lb0 th", has_text="Trained")
    method = page.locator("#lb0 thead th", has_text="Method")
    method.locator("button").click()
    assert method.get_attribute("aria-sort") == "ascending"
    assert labels(page) == sorted(labels(page))
    method.locator("button").focus()
    page.keyboard.press("Enter")
    assert method.get_attribute("aria-sort") == "descending"
    assert labels(page) == sorted(labels(page), reverse=True)
    head.locator("button").click()
    assert (head.get_attribute("aria-sort"), method.get_attribute("aria-sort")) == ("descending", "none")
    assert labels(page)[-1] == "frozen"
    assert "Sorted by Trained" in page.locator("#said").inner_text()


def test_what_has_no_value_is_sorted_last_both_ways(page: Any) -> None:
    shapes = page.locator("#lb0 thead th", has_text="Shapes").locator("button")
    for _ in range(2):
        shapes.click()
        assert labels(page)[-1] == "vpt"


def test_filtering_says_how_many_are_left(page: Any) -> None:
    page.get_by_label("Method contains").fill("m")
    assert labels(page) == ["mmpt"]
    count = page.locator(".filters[data-for=lb0] output")
    assert count.inner_text() == "1 of 5 methods"
    page.get_by_label("Method contains").fill("")
    page.get_by_label("Trains at most").fill("0.5")
    assert labels(page) == ["frozen"]
    page.get_by_label("Trains at most").fill("")
    page.get_by_label("Ranked only").check()
    assert "vpt" not in labels(page)


def test_from_a_cell_to_raw_answers_in_two_clicks(page: Any) -> None:
    row = page.locator("#lb0 tbody tr", has=page.locator("th", has_text="mmpt"))
    row.locator("a.cell").nth(1).click()
    dialog = page.locator("dialog#cell")
    assert dialog.is_visible()
    said = dialog.inner_text()
    assert "mmpt: Colours" in said
    for name in ("95 % interval", "Interval from", "seeds and images: crossed bootstrap", "Score by seed",
                 "accuracy of 120 questions on 120 images"):  # fmt: skip
        assert name in said
    dialog.get_by_role("button", name="Raw answers").click()
    assert not dialog.is_visible()
    rows = page.locator("#raw tbody tr")
    rows.first.wait_for()
    assert rows.count() == 50
    assert "mmpt on Colours, seed 0: run mmpt-" in page.locator("#raw caption").inner_text()
    assert page.locator("#choose select[name=seed] option").all_inner_texts() == ["0", "1"]
    assert page.locator("#choose select[name=method]").evaluate("e => e === document.activeElement")


def test_overall_leads_to_the_answers_of_each_task(page: Any) -> None:
    page.locator("#lb0 tbody tr", has_text="lora").locator("a.cell").first.click()
    buttons = page.locator("dialog#cell .actions button")
    assert buttons.all_inner_texts() == ["Raw answers: Colours", "Raw answers: Shapes"]
    buttons.nth(1).click()
    page.locator("#raw tbody tr").first.wait_for()
    assert page.locator("#raw tbody tr").count() == 24


def test_raw_answers_are_paged_and_filtered(page: Any) -> None:
    page.locator("tr[data-keys] a.raw").first.click()
    page.locator("#raw tbody tr").first.wait_for()
    page.select_option("#choose select[name=method]", "frozen")
    count = page.locator("#choose output")
    assert count.inner_text() == "1 to 50 of 120 (120 asked)"
    assert page.locator("#back").is_disabled()
    page.locator("#next").click()
    page.locator("#next").click()
    assert count.inner_text() == "101 to 120 of 120 (120 asked)"
    assert page.locator("#next").is_disabled()
    page.select_option("#choose select[name=show]", "unreadable")
    assert count.inner_text() == "1 to 40 of 40 (120 asked)"
    assert set(page.locator("#raw tbody tr td:last-child").all_inner_texts()) == {"wrong"}
    page.get_by_label("Contains", exact=True).fill("no such sample")
    assert count.inner_text() == "none of 120"


def test_dialog_is_left_by_escape_and_gives_the_focus_back(page: Any) -> None:
    cell = page.locator("#lb0 a.cell").first
    cell.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog#cell").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("dialog#cell").is_visible()
    assert cell.evaluate("e => e === document.activeElement")


def test_everything_is_reached_by_the_tab_key(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    for _ in range(400):
        page.keyboard.press("Tab")
        if page.evaluate("""() => { const known = document.activeElement.dataset.reached;
                document.activeElement.dataset.reached = "1"; return Boolean(known) }"""):
            break
    missed = page.evaluate("""() => [...document.querySelectorAll("a[href], button, input, select, summary, pre")]
        .filter((e) => e.checkVisibility() && !e.disabled && !e.dataset.reached && !e.matches(".skip"))
        .map((e) => e.outerHTML.slice(0, 120))""")
    assert missed == []


def test_samples_are_filtered_by_who_is_right_and_wrong(page: Any) -> None:
    page.select_option(".browse select[name=right]", "full")
    page.select_option(".browse select[name=wrong]", "frozen")
    shown = page.locator(".card:not([hidden])")
    assert 0 < shown.count() < page.locator(".card").count()
    assert f"{shown.count()} of {page.locator('.card').count()} samples" == page.locator(".browse output").inner_text()
    for text in shown.all_inner_texts():
        assert "full" in text


def test_dark_by_the_system_and_by_the_button(browser: Any, report: Path) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(report.as_uri())
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(paper) == "rgb(20, 23, 26)"
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"
    page.locator("#theme").click()
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert page.locator("#theme").get_attribute("aria-pressed") == "false"
    context.close()


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_narrow_page_does_not_scroll_sideways(browser: Any, report: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Labels of variants are as long as their hyperparameters are many.
    page.select_option("#choose select[name=method]", index=0)
    page.evaluate("document.querySelector('#choose option').textContent = 'mmpt (visual_length=20) '.repeat(4)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_paper_has_no_controls_and_everything_unfolded(page: Any) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    for selector in (".top", ".filters", "#answers", ".copy", "figure details"):
        assert not page.locator(selector).first.is_visible()
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    # What is a button on the screen is left out where a table's heading repeats on the next sheet.
    assert set(page.locator("thead button").evaluate_all("all => all.map((e) => getComputedStyle(e).display)")) == {
        "contents"
    }
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") > 0
    assert page.pdf()[:5] == b"%PDF-"


def test_figures_are_drawn_and_can_be_kept(page: Any) -> None:
    image = page.locator("figure svg").first
    assert image.evaluate("e => e.getBoundingClientRect().width > 100")
    with page.expect_download() as download:
        page.locator("[data-figure]").first.click()
    assert download.value.suggested_filename == "leaderboard-embedded.svg"
    assert Path(download.value.path()).read_text().startswith("<svg")


def test_letters_are_as_large_in_every_figure(page: Any) -> None:
    scales = page.locator("figure svg").evaluate_all("all => all.map((e) => e.clientWidth / e.viewBox.baseVal.width)")
    assert len(scales) > 1
    assert max(scales) - min(scales) < 0.1


def test_figures_have_the_colours_of_the_theme(page: Any) -> None:
    letters = "getComputedStyle(document.querySelector('figure svg use')).fill"
    black = "getComputedStyle(document.querySelector('figure svg [stroke=\"#000000\"]')).stroke"
    assert page.evaluate(letters) == page.evaluate(black) == "rgb(26, 29, 33)"
    page.locator("#theme").click()
    assert page.evaluate(letters) == page.evaluate(black) == "rgb(232, 234, 237)"
    assert page.evaluate("document.querySelectorAll('figure svg [fill=\"#ffffff\"]').length") > 0
    white = "getComputedStyle(document.querySelector('figure svg [fill=\"#ffffff\"]')).fill"
    assert page.evaluate(white) == "rgb(20, 23, 26)"


def test_rows_are_cards_on_a_narrow_page(browser: Any, report: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(report.as_uri())
    row = page.locator("#lb0 tbody tr", has=page.locator("th", has_text="mmpt"))
    cells = row.locator("td:visible")
    names = cells.evaluate_all("all => all.map((e) => getComputedStyle(e, '::before').content)")
    assert {'"Overall %"', '"Colours %"', '"Shapes %"', '"Trained %"'} <= set(names)
    assert page.evaluate("[...document.querySelectorAll('#lb0 td')].every((e) => e.scrollWidth <= 390)")
    # What a method has nothing of takes no room, and scores from papers wait to be opened.
    nothing = page.locator("table.stacked td", has_text=re.compile(r"^–$"))
    assert nothing.count() > 0
    assert not any(each.is_visible() for each in nothing.all())
    papers = page.locator("#published ~ details")
    assert not papers.locator("table").is_visible()
    papers.locator("summary").click()
    assert papers.locator("table").is_visible()
    # What was the heading sorts the cards.
    page.locator("#lb0 thead th", has_text="Method").locator("button").click()
    assert labels(page) == sorted(labels(page))
    context.close()


def test_on_paper_the_first_sheet_has_the_verdict_and_the_whole_leaderboard(page: Any, tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf", reason="needs `pip install pypdf`")
    names = labels(page)
    page.pdf(path=tmp_path / "page.pdf", prefer_css_page_size=True)
    sheets = [each.extract_text() for each in pypdf.PdfReader(tmp_path / "page.pdf").pages]
    assert len(sheets) <= 12
    assert "Leaderboard" in sheets[0]
    table = sheets[0].split("Leaderboard", 1)[1]
    assert all(name in table for name in names)
    assert "Trained" in table


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(browser: Any, report: Path, scheme: Any, width: int) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs `pip install axe-playwright-python`"
    )
    context = browser.new_context(bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")
    results = axe.Axe().run(page)
    found = [f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in results.response["violations"]]
    context.close()
    assert found == []


def test_raw_answers_of_an_open_task_show_the_replies(browser: Any, tmp_path: Path) -> None:
    import mmpt_bench as mb
    from mmpt_bench.evaluation.task_catalog import find_tasks, load_task

    file = str(ROOT / "examples" / "open_answers.py")
    made = mb.run("frozen", file, limit=8, out=tmp_path, offline=True)
    store, (entry,) = Store(tmp_path), find_tasks(file)
    path = tmp_path / "report.html"
    path.write_bytes(write.page(gather(store, {entry.name: load_task(entry)}, n_resamples=200), store).data)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, faults = context.new_page(), []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(path.as_uri())
    page.locator("tr[data-keys] a.raw").first.click()
    page.locator("#raw tbody tr").first.wait_for()
    shown = page.locator("#raw tbody tr").all_inner_texts()
    (record,) = made.records
    kept = store.run(record.run).predictions(record.task, record.replies_key or record.eval_key)
    assert len(shown) == len(kept) == 8
    for prediction in kept.values():
        assert prediction.reply.strip()
        assert any(prediction.reply.strip() in text for text in shown)
    context.close()
    assert faults == []
