"""The list of a cohort, and what is said where there is no page."""

from collections.abc import Sequence
from typing import Literal

from tnet.adapters.footer import sure
from tnet.scripts.markup import Html, joined, tag
from tnet.scripts.output import percent
from tnet.scripts.viewer.cohort import Entry

Sort = Literal["uncertain", "name", "label"]
SORTS: dict[Sort, str] = {"uncertain": "least certain first", "name": "name", "label": "class"}
ON_A_PAGE = 100


def list_page(entries: Sequence[Entry], sort: Sort, page: int, missing: int) -> str:
    """Return the list as HTML.

    Args:
        entries: all of them.
        sort: the order.
        page: which part of the list, from 1.
        missing: how many walks could not be read.
    """
    ordered = sorted(entries, key=lambda entry: _key(entry, sort))
    pages = max(1, -(-len(ordered) // ON_A_PAGE))
    page = min(page, pages)
    shown = ordered[(page - 1) * ON_A_PAGE : page * ON_A_PAGE]
    about = f"{len(entries)} image{'s'[: len(entries) != 1]}"
    if missing:
        about += f"; {missing} more could not be read, as the terminal says"
    return _page(
        "TNet viewer",
        tag("h1", "Where the model looked"),
        tag("p", about, class_="sub"),
        _orders(sort) if any(entry.walk for entry in entries) else None,
        tag("ul", *map(_item, shown), class_="cohort"),
        _others(sort, page, pages),
    )


def message_page(sentence: str) -> str:
    """Return a page that says one sentence."""
    return _page("TNet viewer", tag("p", sentence), tag("p", tag("a", "to the list", href="/")))


def _page(title: str, *parts: "Html | None") -> str:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("link", rel="icon", href="/static/icon.svg"),
        tag("link", rel="stylesheet", href="/static/style.css"),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', *parts, class_='list'), lang='en')}\n"


def _key(entry: Entry, sort: Sort) -> tuple[float | str, str]:
    if sort == "uncertain":
        return entry.certainty, entry.title
    return ("" if sort == "name" else entry.label), entry.title


def _orders(chosen: Sort) -> Html:
    links = [
        tag("a", text, href=f"/?sort={sort}", aria_current="true" if sort == chosen else None)
        for sort, text in SORTS.items()
    ]
    return tag("nav", "Sorted by ", *links, class_="orders", aria_label="order of the list")


def _others(sort: Sort, page: int, pages: int) -> Html | None:
    if pages == 1:
        return None
    links = [
        tag("a", text, href=f"/?sort={sort}&page={other}") if 1 <= other <= pages else None
        for text, other in (("previous", page - 1), ("next", page + 1))
    ]
    return tag("nav", *links, f" page {page} of {pages}", class_="orders", aria_label="pages")


def _item(entry: Entry) -> Html:
    picture = tag("span", "no image", class_="none")
    if entry.image is not None:
        picture = tag("img", src=f"/thumb/{entry.id}.jpg", alt="", loading="lazy")
    return tag(
        "li",
        tag(
            "a",
            tag("span", picture, class_="thumb"),
            tag("span", *_said(entry), class_="said"),
            href=f"/view/{entry.id}",
        ),
    )


def _said(entry: Entry) -> list[Html]:
    name = tag("span", entry.title, class_="name")
    if entry.walk is None:
        return [name]
    claimed = "" if entry.confidence is None else f" {sure(entry.confidence)}"
    looked = f"{entry.glimpses} glimpses, {percent(entry.share or 0)} % of the pixels"
    bar = tag("meter", min="0", max="1", value=str(entry.confidence or 0), aria_label="probability")
    return [
        tag("b", joined(entry.label, tag("span", claimed, class_="sure"))),
        bar,
        name,
        tag("span", looked, class_="looked"),
    ]
