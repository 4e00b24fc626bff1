"""The report of one walk as a page: what was said, where it comes from, whether that holds."""

import hashlib
import json
import math
from dataclasses import dataclass

import numpy as np

from tnet import __version__
from tnet.adapters.exports.heat import Heat
from tnet.adapters.footer import level_name
from tnet.record import Walk
from tnet.scripts.markup import Html, joined, section, table, tag
from tnet.scripts.page_style import document
from tnet.scripts.report_answer import answer
from tnet.scripts.report_checks import Verdict
from tnet.scripts.report_drawing import Sight, heat_figure, level_legend, walk_drawing
from tnet.scripts.report_glimpses import glimpses_section, ranked, short
from tnet.scripts.report_pictures import Pictures
from tnet.scripts.report_style import STYLE
from tnet.scripts.report_trust import trust_section
from tnet.scripts.viewer.cohort import Entry


@dataclass(frozen=True)
class About:
    """All that the page of a walk is made of.

    Attributes:
        walk: the record.
        entry: names its file and its image.
        pictures: what there is to be seen.
        verdict: how far the explanation holds.
        back: address of the index, if there is one.
    """

    walk: Walk
    entry: Entry
    pictures: Pictures
    verdict: Verdict
    back: str | None


def page_of(about: About, *, made_by: str) -> str:
    """Return the page; ``made_by`` names the command."""
    walk, pictures = about.walk, about.pictures
    order = ranked(walk)
    sight = Sight(walk, order)
    back = None if about.back is None else tag("a", "\u2190 all images", href=about.back)
    return document(
        f"{about.entry.title}: {about.entry.label}",
        tag("nav", back) if back else None,
        tag("h1", about.entry.title),
        tag("p", _frame(walk), class_="sub"),
        tag(
            "div",
            answer(walk, order, pictures),
            tag(
                "figure",
                walk_drawing(sight, pictures.ground),
                tag("figcaption", level_legend(walk), _problem(pictures)),
            ),
            class_="hero",
        ),
        _notes(walk),
        _heat(sight),
        trust_section(walk, about.verdict),
        glimpses_section(walk, order, pictures),
        _made(about),
        made_by=made_by,
        style=STYLE,
    )


def _frame(walk: Walk) -> str:
    """Return the image's size, in pixels and on the ground."""
    text = f"{walk.width:,} \u00d7 {walk.height:,} pixels"
    if walk.spacing is not None and walk.unit:
        text += f", {walk.spacing[0]:.4g} {short(walk.unit)} each"
    if walk.crs:
        text += f", {walk.crs if len(walk.crs) < 40 else 'with a coordinate reference system'}"
    return text


def _problem(pictures: Pictures) -> Html | None:
    if pictures.problem is None:
        return None
    return tag("p", pictures.problem, class_="problem")


def _notes(walk: Walk) -> Html | None:
    if not walk.notes:
        return None
    return tag("div", *(tag("p", note) for note in walk.notes), class_="notes")


def _heat(sight: Sight) -> Html | None:
    """Return the map of what speaks for the answer, beside the sum that the answer is."""
    walk = sight.walk
    if walk.label is None or len(walk.glimpses) == 1:
        return None
    about = (
        "The map shows what the glimpses of each place add to the answer. Where there is no colour "
        "the model never looked closer, and nothing is said. The first look, which shows "
        "everything, is left out of it."
    )
    words = tag("div", tag("p", about), _sum(walk))
    return section(
        f"What speaks for {walk.label}",
        tag("div", words, heat_figure(sight, Heat()), class_="hero"),
    )


def _sum(walk: Walk) -> Html:
    """Return the logit of the answer as the sum that it is."""
    number = int(np.argmax(walk.probabilities))
    rows = [["bias", "", _signed(walk.bias[number])]]
    for level in sorted({glimpse.level for glimpse in walk.glimpses}):
        mine = [g.contributions[number] for g in walk.glimpses if g.level == level]
        if level or walk.first_view != (0, 0):
            rows.append([level_name(level), str(len(mine)), _signed(math.fsum(mine))])
    rows.append(["logit", "", _signed(float(walk.logits[number]))])
    about = "The logit is exactly the sum of these"
    if not walk.additive:
        about += "; what a glimpse adds depends on the others here"
    return joined(
        table(["", "glimpses", "adds"], rows, "sum"), tag("p", f"{about}.", class_="aside")
    )


def _signed(value: float) -> str:
    return f"{value:+z.3f}".replace("-", "\u2212")


def _made(about: About) -> Html:
    """Return what one has to know to make this again."""
    walk, made = about.walk, about.walk.made
    parts = (f"{name} {made[name]}" for name in ("tnet", "torch") if name in made)
    glimpses = f"{walk.aggregate or 'not known'}"
    if not walk.additive:
        glimpses += ", so that a contribution depends on the other glimpses"
    file = about.entry.walk
    assert file is not None, "an entry of a report has a walk"
    facts = {
        "image": walk.image,
        "model": walk.model or "without a name",
        "model's SHA-256": made.get("model_sha256", "not recorded"),
        "versions": ", ".join(parts) or "not recorded",
        "calibration": f"temperature {walk.temperature:.4g}",
        "glimpses joined by": glimpses,
        "seed": "none: nothing was drawn" if walk.seed is None else str(walk.seed),
        "reference system": walk.crs,
        "walk": f"{file.name}, SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}",
        "page": f"tnet {__version__}",
        "plan": tag("pre", json.dumps(walk.plan)),
    }
    pairs = [joined(tag("dt", name), tag("dd", value)) for name, value in facts.items() if value]
    return section("How this was made", tag("dl", *pairs, class_="made"))
