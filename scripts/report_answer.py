"""What a model said of an image, how sure it is, and what that cost."""

from collections.abc import Sequence

import numpy as np

from tnet.adapters.footer import short_count, sure
from tnet.record import Walk
from tnet.scripts.markup import Html, embedded, joined, tag
from tnet.scripts.output import percent
from tnet.scripts.report_drawing import badge
from tnet.scripts.report_pictures import Pictures, smaller

_TELLING = 3  # glimpses beside the answer
_SMALL = 180  # pixels of their longer side
_MOST_BARS = 12  # classes with a bar; the others follow as text


def answer(walk: Walk, order: Sequence[int], pictures: Pictures) -> Html:
    """Return the answer in large type, all classes, what says most for it, and the costs."""
    return tag(
        "div",
        _said(walk),
        _classes(walk),
        _costs(walk),
        _most_telling(walk, order, pictures),
        class_="said",
    )


def _most_telling(walk: Walk, order: Sequence[int], pictures: Pictures) -> Html | None:
    """Return small pictures of the closer glimpses that say most."""
    shown = [index for index in order if index in pictures.crops and index][:_TELLING]
    if not shown or walk.label is None:
        return None
    links = [
        tag(
            "a",
            tag("img", src=embedded(smaller(pictures.crops[index], _SMALL), "jpeg"), alt=""),
            badge(index, walk.glimpses[index].level),
            href=f"#glimpse-{index}",
        )
        for index in shown
    ]
    return joined(
        tag("p", f"Glimpses that say most for {walk.label}"),
        tag("p", *links, class_="telling"),
    )


def _said(walk: Walk) -> Html:
    """Return the answer in large type."""
    if walk.label is None or walk.confidence is None:
        about = "The image shows nothing but background, and the model gives no answer."
        return joined(tag("p", walk.outcome, class_="answer"), tag("p", about, class_="sub"))
    names = [walk.label]
    if walk.multilabel:
        pairs = zip(walk.classes, walk.probabilities, strict=True)
        names = [name for name, p in pairs if p > 0.5] or ["none of the labels"]
    claimed = None if walk.multilabel else tag("p", sure(walk.confidence), class_="sureness")
    return joined(
        tag("p", ", ".join(names), class_="answer"),
        claimed,
        tag("p", _calibrated(walk), class_="sub"),
    )


def _calibrated(walk: Walk) -> str:
    if walk.temperature == 1:
        return "As the network gives it: this model's probabilities were not calibrated."
    return (
        f"Calibrated: the temperature {walk.temperature:.3g} was fitted on images that the model "
        "did not learn from."
    )


def _classes(walk: Walk) -> Html | None:
    """Return all classes with their probabilities, the likeliest first."""
    if walk.label is None:
        return None
    order = np.argsort(-walk.probabilities, kind="stable")
    rows = [_class(walk, int(number)) for number in order[:_MOST_BARS]]
    others = [f"{walk.classes[n]} {sure(float(walk.probabilities[n]))}" for n in order[_MOST_BARS:]]
    return joined(
        tag("table", tag("tbody", *rows), class_="classes"),
        tag("p", f"The others: {', '.join(others)}", class_="aside") if others else None,
    )


def _class(walk: Walk, number: int) -> Html:
    probability = float(walk.probabilities[number])
    bar = tag(
        "svg",
        tag("rect", width=100, height=10, class_="room"),
        tag("rect", width=max(0.6, 100 * probability), height=10, class_="share"),
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
    return tag(
        "tr",
        tag("th", walk.classes[number], scope="row"),
        tag("td", bar),
        tag("td", sure(probability)),
    )


def _costs(walk: Walk) -> Html:
    whole = walk.width * walk.height
    cards = [
        ("Glimpses", str(walk.looks), "views that went through the network"),
        ("Pixels looked at", short_count(walk.pixels), f"of {short_count(whole)} in the image"),
        ("Share of the image", f"{percent(walk.share)} %", "pixels looked at, of all pixels"),
    ]
    if walk.seconds > 0:
        cards.append(("Time", f"{walk.seconds:.2g} s", "reading and the network"))
    shown = [
        tag("div", name, tag("b", value), tag("span", about, class_="span"), class_="card")
        for name, value, about in cards
    ]
    return tag("section", tag("div", *shown, class_="cards"), aria_label="what it cost")
