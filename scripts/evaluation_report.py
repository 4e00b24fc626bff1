"""The report of an evaluation as values: what JSON, the page, the table and the CSV are made of."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tnet.adapters.exports.table import csv_cell, csv_line
from tnet.datasets.bootstrap import COVERED, DRAWS, intervals
from tnet.datasets.metrics import measure, notes
from tnet.scripts.evaluation import Seen, costs_of, groups_of, outcomes_of
from tnet.scripts.evaluation_boxes import localisation_of
from tnet.scripts.output import columns, counted, percent

if TYPE_CHECKING:
    from tnet.datasets.metrics import Outcomes
    from tnet.plan import Plan

FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
}
_CALIBRATED = ("ece", "log_loss", "brier")
_CURVE = ("accuracy", "balanced_accuracy", "auroc")
_FEW_GROUPS = 20
_MOST_COLUMNS = 12
_LONG = 24


def report_of(
    seen: Sequence[Seen], classes: tuple[str, ...], *, multilabel: bool, seed: int
) -> dict[str, Any]:
    """Return the figures of an evaluation with their intervals, as JSON-able values.

    Args:
        seen: what came of the images.
        classes: of the model.
        multilabel: whether an image may have several labels.
        seed: of the resamples.
    """
    outcomes = outcomes_of(seen, classes, multilabel=multilabel)
    groups = groups_of(seen)
    failures = [
        {"row": one.entry.row, "image": str(one.entry.image), "error": one.error}
        for one in seen
        if one.error is not None
    ]
    return {
        "n": len(outcomes),
        "failed": len(failures),
        "failures": failures,
        "classes": list(classes),
        "multilabel": multilabel,
        "groups": None if groups is None else len(set(groups)),
        **measure(outcomes),
        "calibration": _calibration(seen, classes, multilabel=multilabel),
        "majority": _majority(outcomes),
        "intervals": _listed(intervals(outcomes, groups, seed=seed)),
        "resamples": {"draws": DRAWS, "covered": COVERED, "seed": seed},
        "costs": costs_of(seen),
        "localisation": localisation_of(seen),
        "notes": [
            *notes(outcomes),
            *_about_groups(groups),
            *_about_spread(outcomes, groups),
            *_about_images(seen),
        ],
    }


def curve_point(
    seen: Sequence[Seen], plan: "Plan", factor: float, *, classes: tuple[str, ...], multilabel: bool
) -> dict[str, Any]:
    """Return one point of the curve of figures against glimpses, as JSON-able values.

    ``steps`` are the numbers of glimpses of the plan, ``glimpses`` how many there were an image.
    """
    outcomes = outcomes_of(seen, classes, multilabel=multilabel)
    figures = measure(outcomes)
    spans = _listed(intervals(outcomes, groups_of(seen)))
    return {
        "factor": factor,
        "steps": [step.glimpses for step in plan.steps],
        "n": len(outcomes),
        **{name: figures[name] for name in _CURVE},
        "intervals": {name: spans[name] for name in _CURVE},
        **costs_of(seen),
    }


def _calibration(
    seen: Sequence[Seen], classes: tuple[str, ...], *, multilabel: bool
) -> dict[str, float | None] | None:
    """Return the temperature, and what the figures would be without it; None for 1."""
    temperature = next((one.temperature for one in seen if one.error is None), 1.0)
    if temperature == 1:
        return None
    plain = [replace(one, probabilities=one.uncalibrated) for one in seen]
    figures = measure(outcomes_of(plain, classes, multilabel=multilabel))
    return {"temperature": temperature} | {name: figures[name] for name in _CALIBRATED}


def calibration_text(report: dict[str, Any]) -> str:
    """Return in one sentence what the model's calibration does for the figures."""
    known = report["calibration"]
    if known is None:
        return "The model's probabilities are not calibrated: its temperature is 1, or it has none."
    pairs = [f"{FIGURES[n]} {number(known[n])} ({number(report[n])} with it)" for n in _CALIBRATED]
    temperature = f"{known['temperature']:.3g}"
    return (
        f"Probabilities are calibrated with the temperature {temperature}, fitted on the "
        f"validation images. Without it: {', '.join(pairs)}."
    )


def _majority(outcomes: "Outcomes") -> float | None:
    """Return the accuracy of always giving the same answer: the commonest class, or labels."""
    if not len(outcomes):
        return None
    shares = outcomes.target_NK.mean(axis=0)
    if outcomes.multilabel:
        return float(sum(max(share, 1 - share) for share in shares) / len(shares))
    return float(shares.max())


def _listed(spans: dict[str, tuple[float, float] | None]) -> dict[str, list[float] | None]:
    return {name: None if span is None else list(span) for name, span in spans.items()}


def _about_groups(groups: list[str] | None) -> list[str]:
    count = 0 if groups is None else len(set(groups))
    if groups is None or count >= _FEW_GROUPS:
        return []
    return [f"the intervals come from {counted(count, 'group')} only, too few to be exact"]


def _about_spread(outcomes: "Outcomes", groups: list[str] | None) -> list[str]:
    """Say what can be said where every resample is the same, because all is right, or wrong."""
    count = len(outcomes) if groups is None else len(set(groups))
    if not count or outcomes.right.min() != outcomes.right.max():
        return []
    what = "images" if groups is None else "groups"
    # Of n trials without a failure, the rate of failures is below 1 - 0.05^(1/n), 95 % sure.
    bound = 0.05 ** (1 / count)
    if outcomes.right.min() == 1:
        said = (
            f"all are right: with {count} {what} one is 95 % sure of an accuracy above {bound:.2f}"
        )
    else:
        said = f"all count the same: {count} {what} do not tell how sure the accuracy is"
    return [f"{said}, whatever the intervals say"]


def _about_images(seen: Sequence[Seen]) -> list[str]:
    """Return what readers said of images, each once, with how many images it holds for."""
    found = Counter(note for one in seen for note in one.notes)
    return [f"of {counted(count, 'image')}: {note}" for note, count in list(found.items())[:10]]


def predictions_csv(seen: Sequence[Seen], classes: tuple[str, ...], *, multilabel: bool) -> str:
    """Return one row an image: what was said, what is true, what was looked at, what failed.

    Several labels are joined with ";". ``found_1`` and so on count the boxes whose centre lay in
    a glimpse of that level; ``hit`` is whether one of the last level held one.
    """
    levels = max((len(one.found) for one in seen), default=0)
    told = [f"found_{level}" for level in range(1, levels + 1)] if _any_boxes(seen) else []
    header = [
        *("row", "image", "label", "predicted", "correct", "confidence"),
        *(f"p_{name}" for name in classes),
        *("glimpses", "pixels", "share", "seconds", "cpu_seconds", "group"),
        *(("boxes", "hit", *told) if told else ()),
        "error",
    ]
    lines = [csv_line([csv_cell(name) for name in header])]
    lines += [
        csv_line([csv_cell(values.get(name)) for name in header])
        for values in _predictions(seen, classes, multilabel=multilabel)
    ]
    return "".join(lines)


def _any_boxes(seen: Sequence[Seen]) -> bool:
    return any(one.hit is not None for one in seen)


def _predictions(
    seen: Sequence[Seen], classes: tuple[str, ...], *, multilabel: bool
) -> Iterable[dict[str, Any]]:
    """Give the named cells of each image's row."""
    outcomes = outcomes_of(seen, classes, multilabel=multilabel)
    decided = iter(zip(outcomes.decisions, outcomes.target_NK, strict=True))
    for one in seen:
        values: dict[str, Any] = {
            "row": one.entry.row,
            "image": str(one.entry.image),
            "label": ";".join(one.entry.labels),
            "group": one.entry.group,
            "error": one.error,
        }
        if one.error is None:
            decision, target = next(decided)
            said = [name for name, there in zip(classes, decision, strict=True) if there]
            values |= {
                "predicted": ";".join(said),
                "correct": bool(one.answered and (decision == target).all()),
                "confidence": _confidence(one, multilabel=multilabel),
                **{f"p_{n}": p for n, p in zip(classes, one.probabilities, strict=True)},
                **{f"found_{level}": count for level, count in enumerate(one.found, 1)},
                "boxes": one.boxes,
                "hit": one.hit,
                **{name: getattr(one, name) for name in ("glimpses", "pixels", "share")},
                **{name: getattr(one, name) for name in ("seconds", "cpu_seconds")},
            }
        yield values


def _confidence(one: Seen, *, multilabel: bool) -> float | None:
    return max(one.probabilities) if one.answered and not multilabel else None


def text_of(report: dict[str, Any]) -> str:
    """Return the report as aligned text for a terminal."""
    failed = f", {report['failed']} failed" if report["failed"] else ""
    images = counted(report["n"], "image")
    blocks = [f"{report['data']}, split {report['split']}: {images}{failed}"]
    rows = [["", "", "95 % interval"]]
    for name, shown in FIGURES.items():
        span = report["intervals"][name]
        rows.append([shown, number(report[name]), "" if span is None else interval(span)])
    rows.append(["always the commonest class", number(report["majority"]), ""])
    blocks.append("\n".join(columns(rows, right=(1,))))
    blocks.append(calibration_text(report))
    if not report["multilabel"] and len(report["classes"]) <= _MOST_COLUMNS:
        blocks.append("\n".join(columns(_confusion(report), right=range(1, _MOST_COLUMNS + 2))))
    blocks += _about_cost(report)
    return "\n\n".join(blocks)


def _confusion(report: dict[str, Any]) -> list[list[str]]:
    names = [name if len(name) <= _LONG else f"{name[: _LONG - 1]}…" for name in report["classes"]]
    silent = any(report["unanswered"])
    rows = [["is \\ said", *names, *(["no answer"] if silent else [])]]
    for name, counts, unanswered in zip(
        names, report["confusion"], report["unanswered"], strict=True
    ):
        rows.append([name, *map(str, counts), *([str(unanswered)] if silent else [])])
    return rows


def _about_cost(report: dict[str, Any]) -> list[str]:
    blocks = []
    place = report["localisation"]
    if place is not None:
        levels = ", ".join(f"level {n} {number(v)}" for n, v in place["recall"].items())
        blocks.append(
            f"boxes: hit in {number(place['hit'])} of {counted(place['images'], 'image')}; found "
            f"of {counted(place['boxes'], 'box', 'boxes')}: {levels}"
        )
    rows = [["glimpses", "an image", "accuracy", "looked at", "CPU s"]]
    for point in report["curve"] or [report | report["costs"] | {"steps": report["steps"]}]:
        if point["glimpses"] is None:
            continue
        steps = steps_text(point["steps"])
        share, seconds = f"{percent(point['share'])} %", f"{point['cpu_seconds']:.3g}"
        rows.append([steps, f"{point['glimpses']:.4g}", number(point["accuracy"]), share, seconds])
    blocks.append("\n".join(columns(rows, right=(1, 2, 3, 4))))
    return blocks


def steps_text(steps: Sequence[int] | None) -> str:
    """Return the numbers of glimpses of a plan in words; None is a plan of tiles."""
    if steps is None:
        return "all tiles"
    return ",".join(map(str, steps)) or "first look alone"


def number(value: float | None) -> str:
    """Return a figure with three decimals, or a dash where it is undefined."""
    return "-" if value is None else f"{value:.3f}"


def interval(span: Sequence[float]) -> str:
    """Return an interval in words."""
    return f"{span[0]:.3f} to {span[1]:.3f}"
