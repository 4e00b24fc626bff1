"""What was taken for what, as a table of the page."""

from typing import Any

from tnet.scripts.markup import Html, section, table, tag

_MOST_CLASSES = 20  # of a matrix that one can read
_MOST_PAIRS = 15
_SHADES = 8
_MOST_ACROSS = 8  # headings that stand side by side; more, or longer ones, are turned
_LONG = 16


def confusion(report: dict[str, Any]) -> Html:
    """Return the section: a matrix, the commonest confusions of many classes, or label by label.

    Args:
        report: as ``tnet evaluate`` writes it to report.json.
    """
    if report["multilabel"]:
        return _labels(report)
    return _matrix(report) if len(report["classes"]) <= _MOST_CLASSES else _pairs(report)


def _labels(report: dict[str, Any]) -> Html:
    rows = [
        [name, str(both[1][1]), str(both[0][1]), str(both[1][0]), str(both[0][0])]
        for name, both in zip(report["classes"], report["confusion"], strict=True)
    ]
    head = ["label", "rightly said", "wrongly said", "missed", "rightly not said"]
    return section("What was said", table(head, rows))


def _matrix(report: dict[str, Any]) -> Html:
    silent = any(report["unanswered"])
    head = ["is \\ said", *report["classes"], *(["no answer"] if silent else [])]
    rows = []
    for index, (said, none) in enumerate(
        zip(report["confusion"], report["unanswered"], strict=True)
    ):
        counts = [*said, none] if silent else said
        total = max(sum(counts), 1)
        shaded = [_shaded(count, total, own=place == index) for place, count in enumerate(counts)]
        heading = tag("th", report["classes"][index], scope="row")
        rows.append(tag("tr", heading, *shaded))
    cells = [tag("th", tag("span", name), scope="col") for name in head]
    upright = len(head) > _MOST_ACROSS or max(map(len, head)) > _LONG
    whole = tag(
        "table",
        tag("thead", tag("tr", *cells)),
        tag("tbody", *rows),
        class_="confusion upright" if upright else "confusion",
    )
    about = "Rows are the truth, columns what the model said; darker is more of the row."
    return section("Confusion", tag("div", whole, class_="scroll"), tag("p", about, class_="sub"))


def _shaded(count: int, total: int, *, own: bool) -> Html:
    shade = 0 if count == 0 else 1 + min(int(count / total * (_SHADES - 1)), _SHADES - 2)
    return tag("td", str(count), class_=f"s{shade}{' right' if own else ''}")


def _pairs(report: dict[str, Any]) -> Html:
    """Name the confusions that are commonest, where a matrix would be too large to read."""
    names = report["classes"]
    pairs = [
        (count, names[true], names[said])
        for true, row in enumerate(report["confusion"])
        for said, count in enumerate(row)
        if count and true != said
    ]
    pairs.sort(key=lambda pair: -pair[0])
    rows = [[true, said, str(count)] for count, true, said in pairs[:_MOST_PAIRS]]
    return section("Commonest confusions", table(["is", "said", "images"], rows))
