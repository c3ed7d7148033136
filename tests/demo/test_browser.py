"""The page in Debian's Chromium, as visitors use it. Screenshots: outputs/screenshots."""

import hashlib
import logging
import os
import re
import shutil
import statistics
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.recipe import read_recipe


sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install 'mg-diffusion[dev]'")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
if not CHROMIUM:
    pytest.skip("no Chromium here: apt-get install chromium, or name one as CHROMIUM", allow_module_level=True)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SCREENS = Path(__file__).resolve().parents[2] / "outputs" / "screenshots"
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
MOVES = 20  # of a slider, each repainted
WAIT = int(os.environ.get("MG_BROWSER_WAIT", 90)) * 1000  # milliseconds; on a busy machine everything takes long


@pytest.fixture(scope="module")
def browser(served):
    SCREENS.mkdir(parents=True, exist_ok=True)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A desktop page; errors of its scripts fail the test."""
    page = browser.new_page(viewport=SIZES["desktop"], accept_downloads=True)
    page.set_default_timeout(WAIT)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert not errors


def open_page(page, served, query="?size=64&steps=3", shown=GRANULARITIES):
    page.goto(f"{served}/{query}")
    for name in shown:
        page.wait_for_selector(f"#{name}-seen img")


def go_to(page, tab):
    page.get_by_role("tab", name=tab).click()


def picture_of(page, place="#gallery"):
    """What a place shows, as the bytes that its address delivers."""
    address = page.locator(f"{place} img").first.get_attribute("src")
    return address, page.request.get(address).body()


def wait_for_new(page, old, place="#gallery"):
    page.wait_for_function(
        "([place, old]) => { const one = document.querySelector(place + ' img'); return one && one.src !== old }",
        arg=[place, old],
    )
    return picture_of(page, place)


def shoot(page, name):
    """The whole page at both widths; it must not be wider than the phone."""
    for size, viewport in SIZES.items():
        page.set_viewport_size(viewport)
        page.evaluate("window.scrollTo(0, 0)")
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], f"{name} at {size} width"
        page.screenshot(path=SCREENS / f"{name}-{size}.png", full_page=True)
    page.set_viewport_size(SIZES["desktop"])


def download(page, place, folder) -> Path:
    with page.expect_download() as waiting:
        page.locator(f"{place} a[download]").first.click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def generate(page):
    page.click("#generate-run")
    page.wait_for_selector("#gallery img")
    return picture_of(page)


def pixels(path) -> np.ndarray:
    with PIL.Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_generate_with_three_references_and_restore(page, served, uploads_folder, tmp_path):
    query = "?size=64&steps=3&seed=7&prompt=a+leaf&texture_scale=0.8&color=sea&texture=weave"
    open_page(page, served, query, ("color", "texture"))
    page.set_input_files("#shape-picture input[type=file]", uploads_folder / "star.png")
    page.wait_for_selector("#shape-picture img")
    generate(page)
    page.wait_for_function("document.querySelector('#link textarea, #link input').value.includes('seed=7')")
    shoot(page, "generate")
    result = download(page, "#files", tmp_path)
    assert read_recipe(result)["seed"] == 7
    # Everything else now; then the file brings it back.
    open_page(page, served, "?size=64&steps=2&color=plum&texture=dots&shape=heart")
    page.get_by_role("button", name="Restore from a result").click()
    page.set_input_files("#restore input[type=file]", result)
    page.wait_for_function("document.querySelector('#seed input').value === '7'")
    assert page.input_value("#prompt textarea") == "a leaf"
    assert page.input_value("#texture-scale input[type=number]") == "0.8"
    assert page.input_value("#color-palette input, #color-palette textarea").startswith("#023047")
    page.wait_for_timeout(500)
    generate(page)
    assert (pixels(download(page, "#files", tmp_path)) == pixels(result)).all()


def file_of(page):
    """The address of the first result that is offered, once there is one."""
    page.wait_for_selector("#files a[download]")
    return page.locator("#files a[download]").first.get_attribute("href")


def wait_for_result(page, old):
    """The address and the bytes of a result other than the old one; drafts are none."""
    page.wait_for_function(
        "old => { const one = document.querySelector('#files a[download]'); return one && one.href !== old }",
        arg=old,
    )
    address = file_of(page)
    return address, page.request.get(address).body()


def test_one_slider_changes_the_picture(page, served):
    open_page(page, served)
    generate(page)
    address = file_of(page)
    before = page.request.get(address).body()
    slider = page.locator("#shape-scale input[type=range]")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
    address, after = wait_for_result(page, address)
    assert page.input_value("#shape-scale input[type=number]") == "0"
    assert hashlib.sha256(before).digest() != hashlib.sha256(after).digest()
    # By keyboard: the number, then Enter; and arrows on the slider.
    page.fill("#shape-scale input[type=number]", "1")
    page.keyboard.press("Tab")
    address, back = wait_for_result(page, address)
    assert hashlib.sha256(back).digest() == hashlib.sha256(before).digest()
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    address, _ = wait_for_result(page, address)
    assert page.input_value("#shape-scale input[type=number]") == "0.8"


class Hand:
    """Holds the slider of a strength."""

    def __init__(self, page, name):
        self.mouse, slider = page.mouse, page.locator(f"#{name}-scale input[type=range]")
        slider.scroll_into_view_if_needed()
        self.box = slider.bounding_box()

    def at(self, share):
        """Move to a share of its length."""
        self.mouse.move(self.box["x"] + share * self.box["width"], self.box["y"] + self.box["height"] / 2)


def side_of(page):
    """The side of a square with the area of the picture that is shown."""
    one = "document.querySelector('#gallery img')"
    return page.evaluate(f"Math.sqrt({one}.naturalWidth * {one}.naturalHeight)")


def test_a_small_picture_follows_a_strength_and_a_large_one_comes_when_it_is_let_go(page, served, tmp_path):
    open_page(page, served, "?size=256&steps=4")
    generate(page)
    first, hand, seconds = file_of(page), Hand(page, "shape"), []
    hand.at(0.5)
    page.mouse.down()
    shown, _ = picture_of(page)
    for move in range(MOVES):
        start = time.perf_counter()
        hand.at(0.2 + 0.6 * ((7 * move) % MOVES) / MOVES)
        shown, _ = wait_for_new(page, shown)
        seconds.append(time.perf_counter() - start)
    page.wait_for_function("document.querySelector('#gallery img').complete")
    assert abs(side_of(page) - 128) < 16 and page.locator("#files a[download]").count() == 0
    logging.info("a moved slider repaints in %.2f s, the median of %d moves", statistics.median(seconds), MOVES)
    hand.at(0.9)
    page.mouse.up()
    wait_for_result(page, first)
    page.wait_for_timeout(1500)  # for a draft that must not come
    page.wait_for_function("document.querySelector('#gallery img').complete")
    assert abs(side_of(page) - 256) < 32
    recipe = read_recipe(download(page, "#files", tmp_path))
    assert recipe["size"] == 256
    assert recipe["granularity_scale"]["shape"] == float(page.input_value("#shape-scale input[type=number]"))


def test_of_hasty_moves_the_last_one_is_painted(page, served, tmp_path):
    """Taken and let go again and again, faster than anything is painted."""
    open_page(page, served, "?size=128&steps=8")
    generate(page)
    old, hand = file_of(page), Hand(page, "texture")
    for share in (0.9, 0.1, 0.7, 0.3):
        hand.at(1 - share)
        page.mouse.down()
        for part in (0.3, 0.6, 1.0):
            hand.at(1 - share + part * (2 * share - 1))
        page.mouse.up()
    wanted = float(page.input_value("#texture-scale input[type=number]"))
    for _ in range(4):  # lettings-go, of which some may be painted on the way
        old, _ = wait_for_result(page, old)
        painted = read_recipe(download(page, "#files", tmp_path))["granularity_scale"]["texture"]
        if painted == wanted:
            break
    assert painted == wanted
    page.wait_for_timeout(2000)
    assert file_of(page) == old  # nothing comes after it


def test_a_color_picture_takes_the_place_of_the_example_but_not_of_a_palette(page, served, uploads_folder):
    for query, palette in (("?size=64&steps=1", ""), ("?size=64&steps=1&color=cc2222", "#cc2222")):
        open_page(page, served, query, ("color",))
        page.set_input_files("#color-picture input[type=file]", uploads_folder / "star.png")
        page.wait_for_selector("#color-picture img")
        if palette:
            page.wait_for_selector("#color-note", state="attached")  # says what is averaged
        else:
            page.wait_for_function(
                "document.querySelector('#color-palette input, #color-palette textarea').value === ''"
            )
            page.wait_for_selector("#color-note", state="detached")  # it goes after the palette has
        page.wait_for_timeout(500)  # for what must not come
        assert page.input_value("#color-palette input, #color-palette textarea") == palette
        assert page.locator("#color-note").count() == bool(palette)


def test_paint_a_mask_and_edit(page, served, uploads_folder, tmp_path):
    open_page(page, served, "?size=64&steps=3&tab=edit")
    page.set_input_files("#photo input[type=file]", uploads_folder / "scene.png")
    page.wait_for_selector("#polarity img")
    canvas = page.locator("#editor canvas").first
    canvas.wait_for()
    page.wait_for_timeout(1500)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 40, y + 30)
    page.mouse.down()
    for step in range(9):
        page.mouse.move(x - 40 + 10 * step, y + 30 + 4 * step)
    page.mouse.up()
    page.wait_for_function("document.querySelector('#polarity-text').innerText.includes('Hatched is repainted')")
    page.get_by_label("variation").check()
    page.wait_for_function("document.querySelector('#polarity-text').innerText.includes('no mask is read')")
    page.get_by_label("repaint", exact=True).check()
    page.wait_for_function("document.querySelector('#polarity-text').innerText.includes('Hatched is repainted')")
    page.click("#edit-run")
    page.wait_for_function("document.querySelector('#edited-text').innerText.includes('differ: 0')")
    page.wait_for_selector("#compared img")
    shoot(page, "edit")
    result = download(page, "#edited", tmp_path)
    made, photo = pixels(result), pixels(uploads_folder / "scene.png")
    from demo.restoring import restore
    from demo.shelf import Shelf

    outside = np.asarray(restore(result.read_bytes(), Shelf(), ["mg-bazaar"]).edit.mask) == 0
    assert 0.5 < outside.mean() < 0.999
    assert (made[outside] == photo[outside]).all()
    assert (made != photo).any()


def test_select_by_a_color_and_a_click_grow_and_invert(page, served, uploads_folder):
    open_page(page, served, "?size=64&steps=3&tab=edit")
    page.set_input_files("#photo input[type=file]", uploads_folder / "scene.png")
    page.wait_for_selector("#polarity img")

    def said(before: int | None = None) -> int:
        """The percentage that is selected, once it is another one."""
        page.wait_for_function(
            "before => { const found = document.querySelector('#polarity-text').innerText.match(/(\\d+)%/);"
            " return found && Number(found[1]) !== before; }",
            arg=before,
        )
        return int(re.search(r"(\d+)%", page.inner_text("#polarity-text"))[1])

    page.wait_for_timeout(1500)
    page.click("#select-by-color")  # of the color that is there at first
    colored = said()
    box = page.locator("#polarity img").bounding_box()
    clicked = colored
    for _ in range(20):  # a click is lost while the picture below it is being replaced
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 6)
        page.wait_for_timeout(3000)
        clicked = said()
        if clicked != colored:
            break
    larger = clicked
    while larger == clicked or larger == 50:  # which inverted is the same
        page.click("#mask-grow")
        larger = said(larger)
    page.click("#mask-invert")
    page.wait_for_function("document.querySelector('#invert input').checked")
    assert 0 < colored < clicked < larger and said(larger) in (99 - larger, 100 - larger, 101 - larger)
    shoot(page, "select")


def test_sweep_and_explain(page, served):
    open_page(page, served, "?size=64&steps=2&tab=explore")
    page.click("#sweep-run")
    page.wait_for_selector("#sheet img")
    page.click("#explain-run")
    page.wait_for_selector("#maps img")
    page.wait_for_function("document.querySelector('#nearness').innerText.includes('to the shape reference')")
    shoot(page, "explore")


def test_a_card_is_made_reused_and_mixed(page, served, uploads_folder, tmp_path):
    open_page(page, served)
    address, with_picture = generate(page)
    go_to(page, "Cards")
    page.click("#card-run")
    page.wait_for_selector("#card a[download]")
    first = download(page, "#card", tmp_path)
    assert first.name == "texture.safetensors"
    page.click("#card-use")
    page.wait_for_selector("#texture-picture img", state="detached")
    page.wait_for_selector("#texture-note:has-text('From a card')")
    go_to(page, "Generate")
    page.click("#generate-run")
    _, with_card = wait_for_new(page, address)
    (tmp_path / "a.png").write_bytes(with_picture)
    (tmp_path / "b.png").write_bytes(with_card)
    assert np.abs(pixels(tmp_path / "a.png").astype(int) - pixels(tmp_path / "b.png")).max() <= 1
    go_to(page, "Cards")
    for card in ("#first-card", "#second-card"):
        page.set_input_files(f"{card} input[type=file]", first)
        page.wait_for_selector(f"{card} a[download]")
    page.click("#mix-run")
    page.wait_for_selector("#mixed img")
    shoot(page, "cards")


def test_a_job_is_stopped(page, served, studio):
    open_page(page, served, "?size=64&steps=50")
    page.fill("#count input[type=number]", "4")
    page.keyboard.press("Tab")
    page.click("#generate-run")
    page.wait_for_function("document.querySelector('#gallery').innerText.includes('step ')")
    page.keyboard.press("Escape")  # first of all: on a busy machine the job may end while the screen is drawn
    page.screenshot(path=SCREENS / "progress-desktop.png")
    page.wait_for_selector("text=Stopped.")
    assert studio.lock.acquire(timeout=30)  # the loop itself ends
    studio.lock.release()
    assert page.locator("#gallery img").count() == 0
    page.fill("#count input[type=number]", "1")
    page.fill("#steps input[type=number]", "2")
    page.keyboard.press("Tab")
    generate(page)


def test_bad_uploads_are_told(page, served, tmp_path):
    open_page(page, served)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture at all")
    page.set_input_files("#shape-picture input[type=file]", tmp_path / "bad.png")
    page.wait_for_selector("#shape-note:has-text('cannot be read as a picture')")
    shoot(page, "bad-upload")
    assert "Traceback" not in page.content()
    page.fill("#color-palette input, #color-palette textarea", "purple")
    page.keyboard.press("Enter")
    page.wait_for_selector("#color-note:has-text('is no color')")
    page.fill("#color-palette input, #color-palette textarea", "#800080")
    page.wait_for_selector("#color-note", state="detached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_start_in_light_and_dark(browser, served, scheme):
    context = browser.new_context(color_scheme=scheme, viewport=SIZES["desktop"])
    page = context.new_page()
    page.set_default_timeout(WAIT)
    open_page(page, served, "?size=64&steps=20")
    generate(page)
    page.wait_for_timeout(1000)
    page.screenshot(path=SCREENS / f"start-{scheme}.png")
    shoot(page, f"start-{scheme}")
    context.close()


def test_about_and_labels(page, served):
    open_page(page, served, "?tab=about")
    page.wait_for_selector("text=Licences.")
    shoot(page, "about")
    for tab in ("Generate", "Edit", "Explore", "Cards"):
        go_to(page, tab)
        page.wait_for_timeout(500)
        bare = page.evaluate(
            """() => [...document.querySelectorAll('input:not([type=file]), textarea, select, button')]
            .filter(one => one.offsetParent !== null && !one.closest('footer'))
            .filter(one => !(one.labels?.length || one.ariaLabel || one.title || one.innerText?.trim() ||
                             one.getAttribute('aria-labelledby') || one.placeholder || one.querySelector('img[alt]')?.alt))
            .map(one => one.outerHTML.slice(0, 120))"""
        )
        assert bare == [], tab
        images = page.evaluate("[...document.images].filter(i => i.offsetParent !== null && i.alt === null).length")
        assert images == 0


def test_an_address_that_says_nothing_still_opens(page, served):
    page.goto(f"{served}/?shape=../../etc&seed=abc&tab=admin")
    page.wait_for_selector("text=is left out")
    page.wait_for_selector("#color-seen img")
    assert re.search("seed is left out", page.content())
