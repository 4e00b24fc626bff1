"""The viewer as a person uses it: Chromium opens it, looks, clicks, plays, and stays at home."""

import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import MAGENTA, Watch, chromium
from command_line import write_png
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from viewer_server import EVIL, TOKEN, Running, running, walk_of, write_walk

from tnet.adapters import open_pyramid
from tnet.adapters.insets import draw_insets
from tnet.errors import UsageError
from tnet.geometry import Region
from tnet.scripts.viewer.assets import load_assets

__all__ = ["chromium"]  # a fixture

WIDTH, HEIGHT = 3001, 2003
SQUARE = Region(1800, 700, 300, 300)
OTHERS = (Region(200, 1500, 300, 300), Region(2500, 100, 20, 20))
LINE = 2.5  # pixels of the screen, see style.css


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two walks over grey images with a magenta square where the second glimpse is."""
    try:
        assets = load_assets()
    except UsageError as error:
        pytest.skip(f"NOT TESTED IN A BROWSER: {error}")
    folder = tmp_path_factory.mktemp("browser")
    pixels = np.full((HEIGHT, WIDTH, 3), 180, np.uint8)
    pixels[700:1000, 1800:2100] = MAGENTA
    for name, title, logit in (("a", f"{EVIL}.png", 0.2), ("b", "b.png", 3.0)):
        image = write_png(folder / title, pixels)
        walk = walk_of(str(image), (WIDTH, HEIGHT), SQUARE, *OTHERS, logit=logit)
        write_walk(folder, name, walk)
    values = np.zeros((48, 64), np.float32)
    values[20:28] = 2.0
    view = np.full((48, 64, 3), 180, np.uint8)
    with open_pyramid(folder / "b.png") as pyramid:
        drawn = draw_insets(pyramid, {2: view}, {2: values}, f"Grad-CAM for {EVIL}")
    (folder / "attention" / "b").mkdir(parents=True)
    (folder / "attention" / "b" / "2.png").write_bytes(drawn[2])
    with running(folder, assets=assets) as server:
        yield server


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def watch(page: Page, viewer: Running) -> Iterator[Watch]:
    """Fail where the page had errors or asked anybody but its server."""
    watch = Watch(page)
    yield watch
    assert watch.troubles == []
    assert {urlsplit(url).netloc for url in watch.asked} == {f"127.0.0.1:{viewer.port}"}


def opened(page: Page, viewer: Running, title: str = "b.png", state: str = "") -> None:
    """Open a walk's page, and wait for its image."""
    entry = next(entry for entry in viewer.entries if entry.title == title)
    page.goto(f"{viewer.base}/view/{entry.id}?token={TOKEN}{state}")
    page.wait_for_selector("body[data-ready]")
    page.wait_for_load_state("networkidle")


def magenta(page: Page) -> tuple[int, int, int, int]:
    """Return where the square is seen: left, top, right and bottom (just past), in pixels."""
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    rows, columns = np.nonzero(np.abs(shot - MAGENTA).sum(axis=2) < 120)
    return (
        int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1,
    )  # fmt: skip


def edges(page: Page, glimpse: int) -> tuple[float, float, float, float]:
    """Return where a glimpse's box is, as ``magenta``; the middle of its line."""
    box = page.locator(f".box[data-glimpse='{glimpse}'] .line").bounding_box()
    assert box is not None
    half = LINE / 2
    left, top = box["x"] + half, box["y"] + half
    return left, top, left + box["width"] - LINE, top + box["height"] - LINE


def test_from_the_list_to_a_walk(page: Page, viewer: Running, watch: Watch) -> None:
    page.goto(f"{viewer.base}/?token={TOKEN}")
    assert TOKEN not in page.url
    names = page.locator(".cohort .name")
    assert names.all_text_contents() == [f"{EVIL}.png", "b.png"]  # the less certain one first
    page.wait_for_load_state("networkidle")
    page.locator(".cohort a").first.click()
    page.wait_for_selector("body[data-ready]")
    page.wait_for_load_state("networkidle")
    assert page.locator("#title").text_content() == f"{EVIL}.png"
    assert EVIL in page.locator("#classes").inner_text()
    assert any("/tile/" in url for url in watch.asked)
    assert page.locator("#scale-text").text_content() == "200 µm"
    assert page.locator(".box").count() == 4
    assert page.locator(".ring:not(.off)").count() == 1  # the box of 20 pixels


@pytest.mark.usefixtures("watch")
def test_boxes_lie_where_the_image_is(page: Page, viewer: Running) -> None:
    for state in ("", "#view=1900,800,1200", "#view=1950.3,850.7,410"):
        opened(page, viewer, state=state)
        page.reload()  # an address that differs after # alone loads nothing
        page.wait_for_selector("body[data-ready]")
        page.wait_for_load_state("networkidle")
        expected = edges(page, 1)
        page.keyboard.press("b")
        # OpenSeadragon puts tiles on whole pixels of the screen, and a scaled edge is a blur.
        np.testing.assert_allclose(magenta(page), expected, atol=1.5)


@pytest.mark.usefixtures("watch")
def test_a_click_shows_the_glimpse(page: Page, viewer: Running) -> None:
    opened(page, viewer)
    left, top, right, bottom = edges(page, 1)
    page.mouse.click((left + right) / 2, (top + bottom) / 2)
    expect(page.locator("#where")).to_have_text("2 of 4")
    crop = page.locator("#crop")
    expect(crop).to_have_js_property("naturalWidth", 64)
    numbers = page.locator("#numbers").inner_text()
    for text in ("25.0 %", "1800, 700", "300 \u00d7 300 px", "150 \u00d7 150 \u00b5m", "glimpse 1"):
        assert text in numbers
    assert "+0.750" in page.locator("#contributions").inner_text()
    assert page.locator("#inset-figure").is_hidden()
    page.keyboard.press("Escape")
    assert page.locator("#chosen").is_hidden()


@pytest.mark.usefixtures("watch")
def test_what_lies_inside_a_glimpse(page: Page, viewer: Running) -> None:
    opened(page, viewer, state="#glimpse=3")
    inset = page.locator("#inset")
    expect(inset).to_have_js_property("naturalWidth", 256)
    expect(page.locator("#inset-text")).to_have_text(f"Grad-CAM for {EVIL}")
    tip = page.locator("#inset-figure").get_attribute("title")
    assert tip == "clear is 0, yellow is 2, in all glimpses"
    page.keyboard.press("n")
    expect(inset).to_be_hidden()


@pytest.mark.usefixtures("watch")
def test_play_steps_and_keys(page: Page, viewer: Running) -> None:
    opened(page, viewer)
    shown = page.locator(".box:not(.gone)")
    page.keyboard.press(" ")
    expect(page.locator("#where")).to_have_text("1 of 4")
    assert shown.count() == 1  # boxes come when they are reached
    expect(page.locator("#where")).to_have_text("2 of 4")
    assert shown.count() == 2
    page.locator("#play").click()
    assert page.locator("#play").text_content() == "play"
    assert shown.count() == 4
    page.keyboard.press("n")
    expect(page.locator("#where")).to_have_text("3 of 4")
    page.keyboard.press("p")
    expect(page.locator("#where")).to_have_text("2 of 4")
    page.keyboard.press("1")
    assert shown.count() == 1
    page.locator("#levels button").nth(1).click()
    assert shown.count() == 4
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()


@pytest.mark.usefixtures("watch")
def test_the_heat_map_and_its_slider(page: Page, viewer: Running) -> None:
    opened(page, viewer, state="#view=350,1650,1200&hidden=0,1")
    place = 480, 450  # the middle of the stage

    def colour() -> tuple[int, ...]:
        shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        found = shot.getpixel(place)
        assert isinstance(found, tuple)
        return found

    plain = colour()
    with page.expect_response("**/heat/**"):
        page.locator("#heat").check()
    page.wait_for_load_state("networkidle")
    page.locator("#opacity").fill("0")
    page.wait_for_timeout(300)
    assert colour() == plain
    page.locator("#opacity").fill("1")
    page.wait_for_timeout(300)
    assert np.abs(np.subtract(colour(), (253, 231, 37))).max() <= 3  # the top of the scale
    expect(page.locator("#legend-text")).to_have_text("weight in the answer, square-root scale")
    assert page.locator("#legend-bar span").all_text_contents() == ["0", "0.25"]
    with page.expect_response("**.png?kind=contribution**"):
        page.locator("#kind").select_option("contribution")
    expect(page.locator("#legend-text")).to_contain_text("contribution to the logit of calm")
    assert page.locator("#target").is_visible()


@pytest.mark.usefixtures("watch")
def test_the_address_brings_back_what_was_seen(page: Page, viewer: Running) -> None:
    opened(page, viewer, state="#view=1900,800,1200&glimpse=3&heat=weight&opacity=0.25")
    expect(page.locator("#where")).to_have_text("3 of 4")
    page.keyboard.press("1")
    page.wait_for_timeout(300)
    before, place = edges(page, 1), page.url
    assert "hidden=1" in place
    page.goto("about:blank")
    page.goto(place)
    page.wait_for_selector("body[data-ready]")
    expect(page.locator("#where")).to_have_text("3 of 4")
    assert page.locator("#heat").is_checked()
    assert page.locator("#opacity").input_value() == "0.25"
    assert page.locator(".box:not(.gone)").count() == 1
    page.keyboard.press("1")
    np.testing.assert_allclose(edges(page, 1), before, atol=0.5)


def test_another_site_gets_nothing(page: Page, viewer: Running, tmp_path: Path) -> None:
    opened(page, viewer)  # so that the browser has the cookie
    entry = viewer.entries[0]
    address = f"{viewer.base}/thumb/{entry.id}.jpg"
    evil = tmp_path / "evil.html"
    evil.write_text(f"<img src='{address}'><iframe src='{viewer.base}/'></iframe>")
    answers = []
    page.on("response", lambda answer: answers.append((answer.url, answer.status)))
    page.goto(evil.as_uri())
    page.wait_for_load_state("networkidle")
    assert (f"{viewer.base}/", 403) in answers
    assert (address, 200) not in answers
    assert page.locator("img").evaluate("image => image.naturalWidth") == 0
