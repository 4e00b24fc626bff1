"""The index of many reports: the least certain first, each with a small picture."""

import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from tnet.adapters.footer import sure
from tnet.scripts.markup import Html, embedded, joined, section, table, tag
from tnet.scripts.output import counted, percent
from tnet.scripts.page_style import document
from tnet.scripts.report_style import STYLE
from tnet.scripts.viewer.cohort import Entry

_SIDE = 112  # pixels of a thumbnail's longer side; it is shown smaller
_QUALITY = 60
MOST_THUMBNAILS = 500  # the index of any more stays light
_MOST_FAILURES = 50
_MOST_ANSWERS = 20


@dataclass(frozen=True)
class Row:
    """An image of the index.

    Attributes:
        entry: what was said of it.
        page: its own page.
        picture: a JPEG file; None if there is none to be seen.
    """

    entry: Entry
    page: Path
    picture: bytes | None


def thumbnail(ground: Image.Image | None) -> bytes | None:
    """Return an image small, as a JPEG file."""
    if ground is None:
        return None
    small = ground.copy()
    small.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def index_page(rows: Sequence[Row], failures: Sequence[str], *, made_by: str) -> str:
    """Return the index.

    Args:
        rows: the images, in any order.
        failures: a sentence for each walk that could not be read.
        made_by: name of the command.
    """
    ordered = sorted(rows, key=lambda row: (row.entry.certainty, row.entry.title))
    items = [_item(row, there=place < MOST_THUMBNAILS) for place, row in enumerate(ordered)]
    about = f"{counted(len(rows), 'image')}, the least certain first"
    if failures:
        about += f"; {counted(len(failures), 'walk')} could not be read"
    return document(
        "What the model saw",
        tag("h1", "What the model saw"),
        tag("p", about, class_="sub"),
        _answers(rows),
        tag("ul", *items, class_="index"),
        _failures(failures),
        made_by=made_by,
        style=STYLE,
    )


def _answers(rows: Sequence[Row]) -> Html:
    """Return how often each class was said."""
    counts = Counter(row.entry.label for row in rows)
    lines = [[name, str(count)] for name, count in counts.most_common(_MOST_ANSWERS)]
    return tag("div", table(["answer", "images"], lines), class_="scroll")


def _item(row: Row, *, there: bool) -> Html:
    entry = row.entry
    picture = tag("span", "no picture", class_="none")
    if row.picture is not None and there:
        picture = tag("img", src=embedded(row.picture, "jpeg"), alt="")
    claimed = "" if entry.confidence is None else sure(entry.confidence)
    looked = f"{entry.glimpses} glimpses, {percent(entry.share or 0)} % of the pixels"
    return tag(
        "li",
        tag(
            "a",
            tag("span", picture, class_="thumb"),
            tag(
                "span",
                tag("b", joined(entry.label, " ", tag("span", claimed, class_="aside"))),
                _bar(entry.confidence or 0.0),
                tag("span", entry.title, class_="name"),
                tag("span", looked, class_="aside"),
                class_="about",
            ),
            href=f"{address(row.page.parent.name)}/{address(row.page.name)}",
        ),
    )


def address(name: str) -> str:
    """Return a file's name as an address has it."""
    return quote(os.fsencode(name))


def _bar(share: float) -> Html:
    return tag(
        "svg",
        tag("rect", width=100, height=4, class_="room"),
        tag("rect", width=100 * share, height=4, class_="share"),
        viewBox="0 0 100 4",
        preserveAspectRatio="none",
        class_="sure",
        aria_hidden="true",
    )


def _failures(failures: Sequence[str]) -> Html | None:
    if not failures:
        return None
    shown = [tag("p", sentence) for sentence in failures[:_MOST_FAILURES]]
    left = len(failures) - len(shown)
    if left:
        shown.append(tag("p", f"and {left} more"))
    return section("Walks that could not be read", tag("div", *shown, class_="notes"))
