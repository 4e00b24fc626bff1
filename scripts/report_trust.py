"""Whether the answer hangs on the glimpses that are named, in words and figures."""

from tnet.faithfulness import Faithfulness
from tnet.record import Walk
from tnet.scripts.figures import removal_figure
from tnet.scripts.markup import Html, section, tag
from tnet.scripts.report_checks import Verdict


def trust_section(walk: Walk, verdict: Verdict) -> Html:
    """Return what happens without glimpses, and whether the answer follows from these alone."""
    if verdict.faith is None:
        unknown = f"What happens without glimpses is not known: {verdict.why_no_faith}."
        faith = [tag("p", unknown)]
    else:
        faith = _curves(walk, verdict.faith)
    return section("Does the answer hang on these glimpses?", *faith, tag("p", _replayed(verdict)))


def _curves(walk: Walk, faith: Faithfulness) -> list[Html]:
    """Return how the probability falls and rises with the glimpses."""
    areas = faith.areas()
    good = areas["deletion"] < areas["random_deletion"]
    good = good and areas["insertion"] > areas["random_insertion"]
    said = (
        f"{'Yes' if good else 'Not clearly'}. Taken away in the order below, the glimpses leave "
        f"a mean probability of {areas['deletion']:.2f}, in random orders "
        f"{areas['random_deletion']:.2f}; lower is better. Put back in that order, they give "
        f"{areas['insertion']:.2f}, in random orders {areas['random_insertion']:.2f}; higher is "
        "better."
    )
    pair = [
        ("Taken away", faith.deletion, faith.random_deletion),
        ("Put back", faith.insertion, faith.random_insertion),
    ]
    name = f"probability of {walk.classes[faith.target]}"
    figures = [
        tag(
            "figure",
            removal_figure(f"{title}: {name}", "probability", curve, controls),
            tag("figcaption", tag("b", title), f": {name}, glimpses that say most first"),
        )
        for title, curve, controls in pair
    ]
    return [tag("p", said), tag("div", *figures, class_="pair")]


def _replayed(verdict: Verdict) -> str:
    """Return whether the answer follows from what is shown, and from nothing else."""
    if verdict.replayed is None:
        return f"The answer was not recomputed from the pixels: {verdict.why_no_replay}."
    if verdict.agrees:
        return (
            "Recomputed from the saved pixels of these glimpses alone, the answer is the same "
            f"(largest difference of a logit: {verdict.replayed:.1g})."
        )
    return (
        "Recomputed from the saved pixels, the answer is another one (largest difference of a "
        f"logit: {verdict.replayed:.3g}). The model or the pixels are not those of this walk."
    )
