"""HTML and SVG as values: what is text is escaped, so that no file name or label can be markup."""

import base64
from html import escape
from typing import TypeAlias

Attribute: TypeAlias = str | float | int | None
_EMPTY = ("meta", "link", "img", "br")


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *children: "str | None", **attributes: Attribute) -> Html:
    """Return an element.

    Args:
        name: of the element.
        children: markup stays as it is, other text is escaped, None is left out.
        attributes: a trailing underscore is dropped and others become hyphens (``class_``,
            ``stroke_width``); numbers are written with at most two decimals; None is left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _EMPTY:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: "str | None") -> Html:
    """Return several pieces one after the other, as ``tag`` takes them."""
    return Html(
        "".join(
            child if isinstance(child, Html) else escape(child)
            for child in children
            if child is not None
        )
    )


def embedded(content: bytes, kind: str) -> str:
    """Return a picture as an address that holds it; ``kind`` is "jpeg" or "png"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def section(title: str, *parts: "str | None") -> Html:
    """Return a part of a page under its heading."""
    return tag("section", tag("h2", title), *parts)


def table(head: list[str], rows: "list[list[str]]", class_: str | None = None) -> Html:
    """Return a table; the first cell of each row is its heading."""
    return tag(
        "table",
        tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head))),
        tag(
            "tbody",
            *(
                tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:]))
                for row in rows
            ),
        ),
        class_=class_,
    )


def _text(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.2f}".rstrip("0").rstrip(".")
