"""In a notebook a walk shows itself, whatever its names are, and says no more than the record."""

import re
from dataclasses import replace
from html.parser import HTMLParser

from fakes import fake_model, noise

from tnet.adapters.array import open_array
from tnet.plan import Plan, Step
from tnet.record import Walk
from tnet.traversal import walk

PLAN = Plan(view=(32, 32), steps=(Step(4, 4, 0.375, 8), Step(3, 3, 0.5, 2)))


def record() -> Walk:
    (found,) = walk(fake_model(PLAN), [open_array(noise(301, 517))])
    return found


class Tags(HTMLParser):
    """Counts the elements of a page, and checks that they nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.open: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag != "br":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_boxes_and_rows() -> None:
    found = record()
    tags = Tags(found._repr_html_())
    assert tags.counts["rect"] == len(found.glimpses)  # the image's own, and all but the first look
    assert tags.counts["tr"] == 1 + 12
    assert f"and {len(found.glimpses) - 12} more" in found._repr_html_()
    assert str(found.label) in found._repr_html_()


def test_boxes_are_where_the_glimpses_are() -> None:
    found = record()
    boxes = re.findall(r'<rect x="([^"]+)" y="([^"]+)" width="([^"]+)"', found._repr_html_())
    scale = 320 / 517
    drawn = {tuple(round(float(v), 1) for v in box) for box in boxes}
    for glimpse in found.glimpses[1:]:
        region = glimpse.region
        wanted = (region.x * scale, region.y * scale, region.width * scale)
        assert any(max(abs(a - b) for a, b in zip(box, wanted, strict=True)) < 0.2 for box in drawn)


def test_names_are_escaped() -> None:
    evil = "<script>alert('x')</script>"
    page = replace(record(), image=evil, classes=(evil, evil + "1", evil + "2"))._repr_html_()
    assert "script" not in Tags(page).counts
    assert "&lt;script&gt;" in page


def test_without_evidence() -> None:
    page = replace(record(), outcome="no evidence")._repr_html_()
    assert "no evidence" in page
    assert "for " not in page
