"""What an image file is, and what opening it will cost: ``tnet info slide.svs``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tnet.scripts.options import Images, MaxMemory, MaxPixels, Remote

if TYPE_CHECKING:
    from tnet.adapters import Limits
    from tnet.scripts.inputs import Source

_KILO = 1000


def info(
    images: Images,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON document: a dict, for several images a list."),
    ] = False,
    max_pixels: MaxPixels = None,
    max_memory: MaxMemory = None,
    remote: Remote = False,
) -> None:
    """Show what images are: format, size, levels, bands, pixel size, and what opening costs.

    Exits with 4 if some of the images cannot be read, and with 3 if none can.
    """
    from tnet.adapters.limits import limits_of
    from tnet.scripts.inputs import find_images
    from tnet.scripts.output import exit_code, print_json, reason, say, shown

    limits = limits_of(max_pixels, max_memory)
    reports: list[dict[str, Any]] = []
    failed = 0
    for path in find_images(images):
        try:
            facts = _facts(path, limits, remote)
        except Exception as error:
            failed += 1
            said = reason(str(path), error)
            say(said)
            reports.append({"name": str(path), "error": said})
            continue
        reports.append(facts)
        if not as_json:
            print(shown(("\n" if len(reports) - failed > 1 else "") + page(facts)))
    if as_json and len(reports) > 1:
        print_json(reports)
    elif as_json and not failed:
        print_json(reports[0])
    if failed:
        raise typer.Exit(exit_code(failed, len(reports)))


def _facts(path: "Source", limits: "Limits", remote: bool) -> dict[str, Any]:
    from tnet.adapters import describe, open_pyramid

    with open_pyramid(path, limits=limits, remote=remote) as pyramid:
        return describe(pyramid)


def page(facts: dict[str, Any]) -> str:
    """Return the facts of ``adapters.describe`` as text, a line each."""
    lines = [
        ("format", [facts["format"]]),
        ("size", [f"{facts['width']} x {facts['height']} pixels ({_area(facts['megapixels'])})"]),
        ("levels", [_level(number, level) for number, level in enumerate(facts["levels"])]),
        ("values", [f"{facts['bands']} band{'s'[: facts['bands'] > 1]} of {facts['dtype']}"]),
        ("pixel", [_pixel(facts)]),
        ("reference", [facts["crs"]] if facts["crs"] else []),
        ("nodata", ["none" if facts["nodata"] is None else _number(facts["nodata"])]),
        ("background", [", ".join(_number(value) for value in facts["background"])]),
        ("first look", [f"decodes {_bytes(facts['first_look_bytes'])}"]),
        ("note", facts["notes"]),
    ]
    rows = [
        f"  {name if index == 0 else '':<12}{value}"
        for name, values in lines
        for index, value in enumerate(values)
    ]
    return "\n".join([facts["name"], *rows])


def _level(number: int, level: dict[str, Any]) -> str:
    across, down = level["scale"]
    scale = f"1/{across:g}" if across == down else f"1/{across:g} x 1/{down:g}"
    tile = level["tile"]
    stored = f"tiles of {tile[0]} x {tile[1]}" if tile else "tiles unknown"
    if tile == [level["width"], level["height"]]:
        stored = "in one piece"
    return f"{number}: {level['width']} x {level['height']}, {scale}, {stored}"


def _pixel(facts: dict[str, Any]) -> str:
    if facts["spacing"] is None:
        return "of unknown size"
    x, y = facts["spacing"]
    unit = facts["unit"] or "units"
    return f"{x:.6g} {unit}" if abs(x - y) <= 1e-6 * x else f"{x:.6g} x {y:.6g} {unit}"


def _area(megapixels: float) -> str:
    if megapixels >= _KILO:
        return f"{megapixels / _KILO:.3g} gigapixels"
    return f"{megapixels:.3g} megapixels"


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB"):
        if size < _KILO:
            return f"{size:.3g} {unit}"
        size /= _KILO
    return f"{size:.3g} GB"
