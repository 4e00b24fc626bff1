"""``tnet demo``: make gigapixel slides, walk over them, and show where the model looked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tnet.errors import UsageError
from tnet.scripts.output import print_json, say

if TYPE_CHECKING:
    from tnet.datasets.synthetic import Slide
    from tnet.model import TNet
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
    from tnet.bundle import load
    from tnet.datasets.synthetic import make_dataset
    from tnet.scripts.files import writing

    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file; name a folder for slides and pictures")
    model = load("demo")
    place = folder / "slides" if seed == _SEED else folder / f"slides-{seed}"
    with writing(folder):
        for name in (place.name, "walks", "overlays"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        say(f"making {slides} slides of 1.07 gigapixels in {place} (those already there are kept)")
        made = make_dataset(place, slides, seed=seed, on_progress=_progress)
    rows = [_walked(model, slide, folder) for slide in made]
    if as_json:
        print_json({"model": "demo", "slides": rows})
        return
    _table(rows)


def _walked(model: "TNet", slide: "Slide", folder: Path) -> dict[str, object]:
    """Walk over a slide, write the walk and its picture, and say what came of it."""
    from tnet.adapters import open_pyramid
    from tnet.scripts.files import drawn, write_file
    from tnet.traversal import walk

    name = slide.path.name.removesuffix(".ome.zarr")
    picture = folder / "overlays" / f"{name}.png"
    with open_pyramid(slide.path) as pyramid:
        record = walk(model, [pyramid])[0]
        write_file(picture, drawn(record, pyramid))
    write_file(folder / "walks" / f"{name}.json", record.to_json(indent=1))
    say(f"walked {name}: {record.seconds:.1f} s")
    return _row(name, slide, record, picture)


def _row(name: str, slide: "Slide", record: "Walk", picture: Path) -> dict[str, object]:
    """Say in JSON values what was looked at and whether the answer was right."""
    return {
        "slide": name,
        "gigapixels": record.width * record.height / 1e9,
        "truth": slide.label,
        "said": record.label or record.outcome,
        "confidence": record.confidence,
        "right": record.label == slide.label,
        "glimpses": record.looks,
        "pixels": record.pixels,
        "share": record.share,
        "seconds": record.seconds,
        "targets": len(slide.targets),
        "targets_seen": targets_seen(slide, record),
        "picture": str(picture),
    }


def targets_seen(slide: "Slide", record: "Walk") -> int:
    """Return how many of a slide's targets have their centre in a glimpse of the last level."""
    leaves = [g.region for g in record.glimpses if g.level == record.glimpses[-1].level]
    return sum(
        any(
            region.x <= x + width / 2 <= region.right
            and region.y <= y + height / 2 <= region.bottom
            for region in leaves
        )
        for x, y, width, height in slide.targets
    )


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
    say(f"slide {done} of {total} is ready")
