"""The report of an evaluation as one HTML page that needs nothing else, not even the network."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tnet.scripts.evaluation_confusion import confusion
from tnet.scripts.evaluation_report import FIGURES, calibration_text, interval, number, steps_text
from tnet.scripts.figures import curve_figure, reliability_figure
from tnet.scripts.markup import Html, embedded, joined, section, table, tag
from tnet.scripts.output import counted, percent
from tnet.scripts.page_style import document

if TYPE_CHECKING:
    from tnet.scripts.evaluation_pictures import Mistake

_CARDS = ("accuracy", "balanced_accuracy", "auroc", "f1")
_MOST_FAILURES = 50

_MEANING = {
    "balanced_accuracy": "mean recall of the classes",
    "f1": "mean over the classes",
    "auroc": "each class against the rest, mean",
    "auprc": "each class against the rest, mean",
    "log_loss": "in nats; 0 is perfect",
    "brier": "squared error of the probabilities; 0 is perfect",
    "ece": "expected, 15 bins; 0 is perfect",
}


def page_of(report: dict[str, Any], mistakes: "Sequence[Mistake]" = ()) -> str:
    """Return the page.

    Args:
        report: as ``tnet evaluate`` writes it to report.json.
        mistakes: shown with the pictures of their walks.
    """
    title = f"Evaluation of {report['model']}"
    return document(
        title,
        tag("h1", title),
        tag("p", _about(report), class_="sub"),
        _cards(report),
        _notes(report),
        _figures(report),
        confusion(report),
        _calibration_and_curve(report),
        _costs(report),
        _boxes(report),
        _mistakes(mistakes),
        _failures(report),
        _made(report),
        made_by="tnet evaluate",
    )


def _about(report: dict[str, Any]) -> str:
    failed = f"; {report['failed']} more could not be read" if report["failed"] else ""
    groups = f" in {counted(report['groups'], 'group')}" if report["groups"] else ""
    images = counted(report["n"], "image")
    return f"{report['data']}, split {report['split']}: {images}{groups}{failed}"


def _cards(report: dict[str, Any]) -> Html:
    cards = []
    for name in _CARDS:
        span = report["intervals"][name]
        about = "interval unknown" if span is None else f"95 %: {interval(span)}"
        shown = number(report[name])
        cards.append(
            tag(
                "div",
                FIGURES[name],
                tag("b", shown),
                tag("span", about, class_="span"),
                class_="card",
            )
        )
    return tag("div", *cards, class_="cards")


def _notes(report: dict[str, Any]) -> Html | None:
    if not report["notes"]:
        return None
    return tag("div", *(tag("p", note) for note in report["notes"]), class_="notes")


def _figures(report: dict[str, Any]) -> Html:
    rows = []
    for name, shown in FIGURES.items():
        span = report["intervals"][name]
        between = "" if span is None else interval(span)
        rows.append([shown, number(report[name]), between, _MEANING.get(name, "")])
    if report["multilabel"]:
        rows.append(["all labels right", number(report["exact_match"]), "", "share of the images"])
    alone = "accuracy of one answer for all"
    rows.append(["always the commonest class", number(report["majority"]), "", alone])
    drawn = report["resamples"]["draws"]
    what = "groups" if report["groups"] else "images"
    about = f"Intervals hold the middle 95 % of {drawn} bootstrap resamples of whole {what}."
    if not report["groups"]:
        about = about.replace("whole ", "")
    about += (
        " Of few images a figure may lie outside of that, for a resample holds fewer different "
        "ones; its interval is then widened to hold it."
    )
    return section(
        "Figures",
        tag(
            "div", table(["", "value", "95 % interval", ""], rows, class_="about"), class_="scroll"
        ),
        tag("p", about, class_="sub"),
        tag("h2", "Classes"),
        tag("div", _classes(report), class_="scroll"),
    )


def _classes(report: dict[str, Any]) -> Html:
    figures = [name for name in report["per_class"][0] if name not in ("class", "n")]
    rows = [
        [row["class"], str(row["n"]), *(number(row[name]) for name in figures)]
        for row in report["per_class"]
    ]
    return table(["class", "images", *(FIGURES.get(name, name) for name in figures)], rows)


def _calibration_and_curve(report: dict[str, Any]) -> Html | None:
    known = [point for point in report["curve"] if point["accuracy"] is not None]
    drawn = []
    if len(known) > 1:
        about = "Lines up and down are 95 % intervals; the filled point is the plan evaluated here."
        figure = curve_figure(known, report["majority"])
        drawn.append(_captioned(figure, "Accuracy against glimpses", about))
    if report["n"]:
        about = "On the dashed line probabilities mean what they say."
        figure = reliability_figure(report["reliability"])
        drawn.append(_captioned(figure, "Claimed and true probability", about))
    if not drawn:
        return None
    return section(
        "Glimpses and calibration",
        tag("div", *drawn, class_="pair"),
        tag("p", calibration_text(report), class_="sub"),
    )


def _captioned(picture: Html, name: str, about: str) -> Html:
    return tag("figure", picture, tag("figcaption", tag("b", name), ". ", about))


def _costs(report: dict[str, Any]) -> Html | None:
    own = report | report["costs"]
    points = [point for point in report["curve"] or [own] if point["glimpses"] is not None]
    if not points:
        return None
    rows = [
        [
            steps_text(point["steps"]),
            f"{point['glimpses']:.4g}",
            number(point["accuracy"]),
            number(point["balanced_accuracy"]),
            number(point["auroc"]),
            f"{point['pixels'] / 1e6:.3g}",
            f"{percent(point['share'])} %",
            f"{point['cpu_seconds']:.3g}",
            f"{point['seconds']:.3g}",
        ]
        for point in points
    ]
    head = [
        "glimpses a step",
        "views",
        "accuracy",
        "balanced",
        "AUROC",
        "megapixels",
        "of the image",
    ]
    shown = table([*head, "CPU s", "wall s"], rows)
    about = "All are means an image; CPU seconds hold opening, reading and the network."
    return section(
        "What it costs", tag("div", shown, class_="scroll"), tag("p", about, class_="sub")
    )


def _boxes(report: dict[str, Any]) -> Html | None:
    place = report["localisation"]
    if place is None:
        return None
    rows = [[f"level {level}", number(share)] for level, share in place["recall"].items()]
    images = counted(place["images"], "image")
    about = (
        f"Of {images} with boxes, a glimpse of the last level held a box's centre "
        f"in {percent(place['hit'])} %. Below, the share of all {place['boxes']} boxes whose "
        "centre was in a glimpse, level by level."
    )
    return section("Was the evidence found?", tag("p", about), table(["", "found"], rows))


def _mistakes(mistakes: "Sequence[Mistake]") -> Html | None:
    if not mistakes:
        return None
    figures = []
    for mistake in mistakes:
        sure = "" if mistake.confidence is None else f" ({percent(mistake.confidence)} %)"
        caption = tag(
            "figcaption",
            tag("b", f"said {mistake.predicted}{sure}, is {mistake.label}"),
            tag("br"),
            mistake.image,
        )
        picture = None
        if mistake.picture is not None:
            source = embedded(mistake.picture, "jpeg")
            picture = tag("img", src=source, alt=f"walk over {mistake.image}")
        figures.append(tag("figure", picture, caption))
    return section("Surest mistakes", tag("div", *figures, class_="pair"))


def _failures(report: dict[str, Any]) -> Html | None:
    if not report["failures"]:
        return None
    shown = report["failures"][:_MOST_FAILURES]
    more = len(report["failures"]) - len(shown)
    rows = [tag("p", failure["error"]) for failure in shown]
    if more:
        rows.append(tag("p", f"and {more} more; report.json names them all"))
    return section("Images that failed", tag("div", *rows, class_="notes"))


def _made(report: dict[str, Any]) -> Html:
    made = report["made"]
    facts = {
        "model": report["model"],
        "data": report["data"],
        "made": f"{made['time']}, in {made['seconds']:g} s, on {made['device']}",
        "versions": f"tnet {made['tnet']}, torch {made['torch']}",
        "seed": str(made["seed"]),
        "plan": tag("pre", json.dumps(made["plan"])),
        "training": tag("pre", json.dumps(made["training"], ensure_ascii=False)),
    }
    pairs = [joined(tag("dt", name), tag("dd", value)) for name, value in facts.items()]
    return section("How this was made", tag("dl", *pairs))
