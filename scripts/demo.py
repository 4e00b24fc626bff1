"""``tnet demo``: make gigapixel slides, walk over them, and show where the model looked."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tnet.datasets.synthetic import Slide
    from tnet.record import Walk

# Not among the seeds that the model was trained or measured with.
_SEED = 20_261


def demo(
    folder: Annotated[
        Path, typer.Argument(help="Where to put slides, walks and pictures.", metavar="[DIR]")
    ] = Path("tnet-demo"),
    slides: Annotated[int, typer.Option(min=1, help="How many slides to make.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Other slides for another number.")] = _SEED,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of the table.")
    ] = False,
) -> None:
    """Make gigapixel slides, classify them, and show where the model looked.

    Each slide is 32,768 x 32,768 pixels with a hundred objects under 100 pixels; which kind
    they are decides the class. Run it again and the slides are kept.
    """
    from tnet.adapters import open_pyramid
    from tnet.adapters.overlay import draw_walk
    from tnet.bundle import load
    from tnet.datasets.synthetic import make_dataset
    from tnet.traversal import walk

    place = folder / "slides" if seed == _SEED else folder / f"slides-{seed}"
    _say(f"making {slides} slides of 1.07 gigapixels in {place} (those already there are kept)")
    made = make_dataset(place, slides, seed=seed, on_progress=_progress)
    model = load("demo")
    rows = []
    for slide in made:
        with open_pyramid(slide.path) as pyramid:
            record = walk(model, [pyramid])[0]
            name = slide.path.name.removesuffix(".ome.zarr")
            picture = folder / "overlays" / f"{name}.png"
            written = folder / "walks" / f"{name}.json"
            for path in (picture, written):
                path.parent.mkdir(parents=True, exist_ok=True)
            draw_walk(record, pyramid).save(picture)
            written.write_text(record.to_json(indent=1), encoding="utf-8")
        rows.append(_row(name, slide, record, picture))
        _say(f"walked {name}: {record.seconds:.1f} s")
    if as_json:
        print(json.dumps({"model": "demo", "slides": rows}, indent=1))
        return
    _table(rows)


def _row(name: str, slide: "Slide", record: "Walk", picture: Path) -> dict[str, object]:
    """Say in JSON values what was looked at and whether the answer was right."""
    leaves = [g.region for g in record.glimpses if g.level == record.glimpses[-1].level]
    seen = sum(
        any(
            region.x <= x + width / 2 <= region.right
            and region.y <= y + height / 2 <= region.bottom
            for region in leaves
        )
        for x, y, width, height in slide.targets
    )
    return {
        "slide": name,
        "gigapixels": record.width * record.height / 1e9,
        "truth": slide.label,
        "said": record.label or record.outcome,
        "confidence": record.confidence,
        "right": record.label == slide.label,
        "glimpses": len(record.glimpses),
        "pixels": record.pixels,
        "share": record.share,
        "seconds": record.seconds,
        "targets": len(slide.targets),
        "targets_seen": seen,
        "picture": str(picture),
    }


def _table(rows: list[dict[str, object]]) -> None:
    print(
        f"{'slide':<12}{'truth':<9}{'said':<9}{'':>6}  {'right':<7}{'glimpses':>8}"
        f"{'Mpx':>7}{'of image':>10}{'seconds':>9}  targets seen"
    )
    for row in rows:
        pixels, share = float(str(row["pixels"])), float(str(row["share"]))
        confidence = float(str(row["confidence"] or 0))
        print(
            f"{row['slide']:<12}{row['truth']:<9}{row['said']:<9}{confidence:>6.2f}  "
            f"{'yes' if row['right'] else 'NO':<7}{row['glimpses']:>8}{pixels / 1e6:>7.2f}"
            f"{share:>9.2%}{row['seconds']:>9.1f}  {row['targets_seen']} of {row['targets']}"
        )
    right = sum(bool(row["right"]) for row in rows)
    print(f"{right} of {len(rows)} right; where it looked:")
    for row in rows:
        print(f"  {row['picture']}")


def _progress(done: int, total: int) -> None:
    _say(f"slide {done} of {total} is ready")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
