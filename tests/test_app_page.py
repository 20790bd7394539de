"""The explorer in a real browser, as a person uses it, on a wide and on a narrow screen.

It needs the extra `browser` and Chromium. Without them it is left out, which .ci/long does not
allow: TGDT_MINI_BROWSER=required.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
REQUIRED = os.environ.get("TGDT_MINI_BROWSER") == "required"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
PATIENCE = 60_000  # milliseconds: a busy machine imports torch slowly
HOSTILE = "<script>document.title='broken'</script> $x^2$ star"

try:
    import anywidget  # noqa: F401
    import psutil
    import voila  # noqa: F401
    from playwright.sync_api import expect, sync_playwright
except ModuleNotFoundError as error:
    if REQUIRED:
        raise
    pytest.skip(f"{error}: the extra browser is not installed", allow_module_level=True)
if CHROMIUM is None and not REQUIRED:
    pytest.skip("there is no Chromium here", allow_module_level=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(address, process) of a served explorer, which Ctrl-C ends."""
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "tgdt_mini", "app", "--port", "0", "--no-browser", "--quiet"]
    paths = os.pathsep.join(filter(None, [str(TOP), os.environ.get("PYTHONPATH")]))
    options = {"cwd": folder, "env": os.environ | {"PYTHONPATH": paths}}
    with (folder / "err.txt").open("w", encoding="utf-8") as err:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=err, text=True, **options
        )
        try:
            found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
            assert found, (folder / "err.txt").read_text(encoding="utf-8")
            yield found[0], process
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 130
        finally:
            process.kill()
            process.wait()
    assert (folder / "err.txt").read_text(encoding="utf-8").strip() == "stopped"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(params=[1280, 390], ids=["wide", "narrow"])
def page(request, browser, served):
    """The page, its hits shown, on a screen of so many pixels; nothing came from elsewhere."""
    address, _ = served
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    elsewhere, errors = [], []
    page.on("requestfinished", lambda asked: elsewhere.append(asked.url))
    page.on("pageerror", lambda error: errors.append(error))
    visit(page, address)
    yield page
    width = page.evaluate("document.documentElement.scrollWidth")
    page.close()
    others = [url for url in elsewhere if not url.startswith((address, "data:", "blob:"))]
    assert not others and not errors and width <= request.param


def visit(page, address):
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page.goto(address)
    expect(page.locator(".tgdt-hits button")).to_have_count(10)


def names(page):
    """The names of the hits, as they are shown."""
    return [tile.get_attribute("title") for tile in page.locator(".tgdt-tile").all()]


def asked(page, caption):
    page.get_by_label("Caption").fill(caption)
    page.keyboard.press("Enter")
    expect(page.locator(".tgdt-line b")).to_have_text(caption)


def test_a_person_asks_moves_the_weight_and_looks_at_a_hit(page):
    asked(page, "a red star above a blue circle")
    before = names(page)
    for name, text in (("Shortlist", "50"), ("Local weight", "1.5")):
        slider = page.get_by_role("slider", name=name, exact=True)
        expect(slider).to_have_attribute("aria-valuetext", text)
    slider.focus()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "0")
    expect(page.locator(".tgdt-line")).to_contain_text("global + 0 ×")
    expect(page.locator(".tgdt-badge").first).to_be_visible()
    after = names(page)
    assert after != before and len(after) == len(set(after)) == 10
    for tile in page.locator(".tgdt-moved").all():
        assert re.fullmatch(r"[▲▼] \d+", tile.locator(".tgdt-badge").inner_text())
    hit = page.locator(".tgdt-hits button").nth(2)
    hit.click()
    maps = page.locator(".tgdt-maps figure")
    expect(maps).to_have_count(7)  # a word each
    assert "blue" in page.locator(".tgdt-maps").inner_text()
    look, row = page.locator(".tgdt-look").bounding_box(), hit.bounding_box()
    below = page.locator(".tgdt-hits button").nth(9).bounding_box()
    assert row["y"] < look["y"] < below["y"], "below the row of the hit"
    hit.press("Enter")
    expect(maps).to_have_count(0)


def test_a_hit_begins_its_way_where_it_was(page):
    """The first frame of the movement is at the old place, however many hits are in a row."""
    asked(page, "a yellow star above a pink square")
    moved = page.evaluate(
        """() => {
            const tiles = [...document.querySelectorAll('.tgdt-tile')];
            const places = tiles.map(tile => tile.getBoundingClientRect());
            tiles[0].style.cssText = '--was: 7; --is: 0';
            tiles[0].classList.add('tgdt-moved');
            const [animation] = tiles[0].getAnimations();
            animation.pause();
            animation.currentTime = 0;
            const start = tiles[0].getBoundingClientRect();
            tiles[0].classList.remove('tgdt-moved');
            return [start.x - places[7].x, start.y - places[7].y];
        }"""
    )
    assert max(map(abs, moved)) < 8


def drop(page, files=(), x=200, y=600):
    """Drop files, or else a word, by the browser's own drag and drop."""
    words = [] if files else [{"mimeType": "text/plain", "data": "word"}]
    data = {"items": words, "files": [str(path) for path in files], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": x, "y": y, "data": data})


def test_a_picture_is_dropped_anywhere_or_chosen_and_all_else_is_one_line(page, tmp_path):
    asked(page, HOSTILE)
    assert page.title() == "TGDT mini explorer"
    picture, notes = TOP / "data" / "query.png", tmp_path / "notes.txt"
    notes.write_text("no picture", encoding="utf-8")
    line, stale = page.locator(".tgdt-line"), page.locator(".tgdt-stale")
    for files, words in (
        ([notes], "notes.txt cannot be read: it is no picture"),
        ([tmp_path], "cannot be read: it is no picture"),
        ([picture, notes], "These are 2 files; give one picture at a time"),
        ([], "That is no file; give the file of a picture"),
    ):
        drop(page, files)
        expect(line).to_contain_text(words)
        expect(line.locator("p")).to_have_count(1)
        expect(stale).to_have_count(1)
    drop(page, [picture], y=880)
    expect(line).to_contain_text("captions: the global score")
    expect(stale).to_have_count(0)
    field = page.get_by_label("Caption")
    field.fill("")
    box = field.bounding_box()
    drop(page, x=box["x"] + 9, y=box["y"] + 9)  # a field takes a word by itself
    expect(field).to_have_value("word")
    field.fill(HOSTILE)
    page.get_by_role("button", name="Search", exact=True).click()
    expect(line.locator("b")).to_have_text(HOSTILE)
    for _ in range(2):  # the same file again
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Search by a picture").press("Enter")
        chooser.value.set_files(picture)
        expect(line).to_contain_text("captions: the global score")
        asked(page, "a star")


def test_a_closed_page_ends_its_own_process_and_no_other(browser, served):
    address, server = served
    kernels = psutil.Process(server.pid).children
    before = {kernel.pid for kernel in kernels()}
    context = browser.new_context()  # a tab is closed, not the browser
    stays, goes = context.new_page(), context.new_page()
    visit(stays, address)
    (first,) = {kernel.pid for kernel in kernels()} - before
    visit(goes, address)
    (second,) = {kernel.pid for kernel in kernels()} - before - {first}
    goes.close(run_before_unload=True)
    for _ in range(PATIENCE // 100):
        if not psutil.pid_exists(second):
            break
        time.sleep(0.1)
    assert not psutil.pid_exists(second) and psutil.pid_exists(first)
    asked(stays, "two hearts")
    context.close()
