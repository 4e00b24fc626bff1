"""A report as a person opens it: from a file, in Chromium, with nobody asked for anything."""

import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import MAGENTA, Watch, chromium
from command_line import CommandLine, write_png
from PIL import Image
from playwright.sync_api import Browser, Page
from viewer_server import EVIL, walk_of, write_walk

from tnet.geometry import Region

__all__ = ["chromium"]  # a fixture

SIZE = (751, 501)
SQUARE = Region(450, 175, 76, 76)
OTHERS = (Region(50, 375, 76, 76), Region(625, 25, 6, 6))


@pytest.fixture
def report(tnet: CommandLine, tmp_path: Path) -> Path:
    """The index of two images; one has a name that is markup and a magenta square."""
    pixels = np.full((SIZE[1], SIZE[0], 3), 180, np.uint8)
    pixels[175:251, 450:526] = MAGENTA
    for name, title, logit in (("a", f"{EVIL}.png", 0.2), ("b", "b.png", 3.0)):
        image = write_png(tmp_path / title, pixels)
        write_walk(tmp_path, name, walk_of(str(image), SIZE, SQUARE, *OTHERS, logit=logit))
    assert tnet("report", tmp_path).code == 0
    return tmp_path / "report.html"


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1920, "height": 1080})
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


def decoded(page: Page) -> bool:
    """Say whether every picture of the page could be decoded."""
    page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    return len(widths) > 0 and min(widths) > 0


def colour(page: Page, place: tuple[float, float]) -> tuple[int, ...]:
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    found = shot.getpixel((round(place[0]), round(place[1])))
    assert isinstance(found, tuple)
    return found


def test_from_the_index_to_a_glimpse(page: Page, report: Path) -> None:
    watch = Watch(page)
    page.goto(report.as_uri())
    assert page.locator(".index .name").all_text_contents() == [f"{EVIL}.png", "b.png"]
    assert decoded(page)
    page.locator(".index a").first.click()
    page.wait_for_load_state()
    assert page.locator("h1").text_content() == f"{EVIL}.png"
    assert page.locator("h2").all_text_contents() == [
        "What speaks for calm",
        "Does the answer hang on these glimpses?",
        "Every glimpse",
        "How this was made",
    ]
    assert decoded(page)
    assert page.locator(".glimpse").count() == 4
    # The picture that both drawings use is there, in its place, under the policy.
    for drawing in range(2):
        page.locator(".drawing").nth(drawing).scroll_into_view_if_needed()
        box = page.locator(".drawing").nth(drawing).bounding_box()
        assert box is not None
        middle = (SQUARE.x + 60) / SIZE[0], (SQUARE.y + 60) / SIZE[1]
        place = box["x"] + middle[0] * box["width"], box["y"] + middle[1] * box["height"]
        ground = box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"]
        assert colour(page, place) != colour(page, ground)
        if not drawing:
            assert np.abs(np.subtract(colour(page, place), MAGENTA)).max() < 12
    page.locator(".drawing").first.scroll_into_view_if_needed()
    page.locator(".drawing a[href='#glimpse-1']").last.click()
    assert page.url.endswith("#glimpse-1")
    # Its own picture is the square, and nothing else.
    shown = page.locator("#glimpse-1 img").bounding_box()
    assert shown is not None
    centre = shown["x"] + shown["width"] / 2, shown["y"] + shown["height"] / 2
    assert np.abs(np.subtract(colour(page, centre), MAGENTA)).max() < 12
    page.go_back()
    page.locator("nav a").click()
    page.wait_for_load_state()
    assert page.url == report.as_uri()
    assert watch.troubles == []
    assert {urlsplit(url).scheme for url in watch.asked} <= {"file", "data"}
    assert {Path(urlsplit(u).path).suffix for u in watch.asked if u[:5] == "file:"} == {".html"}


def test_it_prints_without_cutting_pictures(page: Page, report: Path) -> None:
    page.goto((report.parent / "report" / "a.html").as_uri())
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 680, "height": 1000})  # A4 less its margins
    boxes = page.evaluate(
        "[...document.querySelectorAll('svg.drawing, .glimpse, .card, img')]"
        ".map(one => one.getBoundingClientRect()).map(b => [b.left, b.right, b.height])"
    )
    for left, right, height in boxes:
        assert left >= 0
        assert right <= 680
        assert height < 1000
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
    assert page.evaluate("getComputedStyle(document.querySelector('.glimpse')).breakInside") == (
        "avoid"
    )
