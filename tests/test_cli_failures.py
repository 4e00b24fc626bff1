"""What goes wrong stays small: one image's failure, one sentence, and no results lost."""

import csv
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import CommandLine, picture, write_model, write_png

from tnet import traversal
from tnet.adapters.image import PillowPyramid
from tnet.errors import UsageError
from tnet.record import Walk
from tnet.scripts.files import OutputError, csv_header, csv_row, write_file
from tnet.scripts.inputs import find_images, output_names
from tnet.scripts.output import Result, print_json, say
from tnet.scripts.progress import Progress

Change = Callable[[Walk], Walk]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small.safetensors", mpp=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("images")
    for seed, name in enumerate("abc"):
        write_png(place / f"{name}.png", picture(seed=seed))
    return place


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def change_walks(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Let every walk over b.png end otherwise."""
    original = traversal.walk

    def walk(*arguments: Any, **options: Any) -> list[Walk]:
        walks = original(*arguments, **options)
        return [change(walk) if walk.image.endswith("b.png") else walk for walk in walks]

    monkeypatch.setattr(traversal, "walk", walk)


def raising(error: BaseException) -> Callable[..., Any]:
    def broken(*_: Any, **__: Any) -> Any:
        raise error

    return broken


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda walk: replace(walk, bias=(math.nan,) * 3), "cannot be written as JSON"),
        (lambda walk: replace(walk, spacing=(math.inf, 1.0)), "cannot be written as JSON"),
        (lambda walk: replace(walk, probabilities=np.ones(1)), "cannot be recorded: zip()"),
    ],
    ids=["NaN", "infinite", "misfit"],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_record_that_fails_is_that_images_failure(
    tnet: CommandLine,
    model: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Change,
    said: str,
    batch: int,
) -> None:
    change_walks(monkeypatch, change)
    command = ("classify", folder, "--model", model, "--batch", batch, "--no-overlay", "--json")
    done = tnet(*command, "--out", tmp_path)
    assert done.code == 4, done.err
    results = json.loads(done.out)["results"]
    assert [result["outcome"] for result in results] == ["class", "failed", "class"]
    assert said in results[1]["error"]
    assert str(folder / "b.png") in results[1]["error"]
    assert [row["error"] for row in rows(tmp_path)] == ["", results[1]["error"], ""]
    assert sorted(path.name for path in (tmp_path / "walks").iterdir()) == ["a.json", "c.json"]


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": math.nan, "b": [1.5, (-math.inf,)], "c": {"d": math.inf, "e": "é"}, "f": True})
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"a": None, "b": [1.5, [None]], "c": {"d": None, "e": "é"}, "f": True}


def test_a_row_has_no_nan() -> None:
    result = Result("a.png", confidence=math.nan, probabilities={"x": math.nan}, mpp=math.inf)
    (row,) = csv.DictReader((csv_header(["x"]) + csv_row(result, ["x"])).splitlines())
    assert (row["confidence"], row["p_x"], row["mpp"]) == ("", "", "")


def test_a_file_that_cannot_be_closed_has_been_read(
    tnet: CommandLine, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PillowPyramid, "close", raising(RuntimeError("stale handle")))
    done = tnet("classify", folder, "--model", model)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("error", [TypeError("f() takes no x"), NameError("x"), AssertionError()])
def test_our_own_mistake_is_not_the_files(
    tnet: CommandLine, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    # A name that only exists in the traversal, so that the innermost function is ours.
    monkeypatch.setattr(traversal, "root", raising(error))
    done = tnet("classify", folder / "a.png", "--model", model)
    assert done.code == 3
    said = f"tnet: {folder / 'a.png'}: internal error: {type(error).__name__}: {error}"
    assert done.err.strip() == said.strip()


def test_what_a_library_stumbles_over_is_the_files(
    tnet: CommandLine, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, error = folder / "a.png", TypeError("no such tag")
    monkeypatch.setattr("tnet.adapters.image.default_background", raising(error))
    done = tnet("classify", image, "--model", model)
    assert (done.code, done.err) == (3, f"tnet: {image} cannot be read: no such tag\n")
    monkeypatch.setattr("PIL.Image.open", raising(error))
    done = tnet("classify", image, "--model", model)
    assert done.code == 3
    assert done.err.startswith(f"tnet: {image} is damaged (no such tag); ")


@pytest.mark.parametrize("batch", [1, 3])
def test_a_plan_that_makes_no_sense_ends_the_run(
    tnet: CommandLine,
    model: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
) -> None:
    calls = []

    def walk(*_: Any, **__: Any) -> Any:
        calls.append(1)
        raise UsageError("the plan goes down too far")

    monkeypatch.setattr(traversal, "walk", walk)
    done = tnet("classify", folder, "--model", model, "--batch", batch, "--out", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err == "tnet: the plan goes down too far\n"
    assert len(calls) == 1
    assert not (tmp_path / "predictions.csv").exists()


def test_rows_are_appended(
    tnet: CommandLine, model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written for an image must not grow with the images before it."""
    table = tmp_path / "predictions.csv"
    table.write_text("of an earlier run\n" * 99)
    seen = []
    advance = Progress.advance

    def noted(progress: Progress, result: Result) -> None:
        seen.append((len(rows(tmp_path)), table.stat().st_ino))
        advance(progress, result)

    monkeypatch.setattr(Progress, "advance", noted)
    command = ("classify", folder, "--model", model, "--out", tmp_path, "--no-overlay")
    assert tnet(*command).code == 0
    assert [count for count, _ in seen] == [1, 2, 3]
    assert len({file for _, file in seen}) == 1
    assert [Path(row["image"]).name for row in rows(tmp_path)] == ["a.png", "b.png", "c.png"]


def test_a_table_of_an_earlier_run_stays_until_there_is_a_row(
    tnet: CommandLine, model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "predictions.csv").write_text("of an earlier run\n")
    monkeypatch.setattr(traversal, "walk", raising(KeyboardInterrupt()))
    assert tnet("classify", folder, "--model", model, "--out", tmp_path).code == 130
    assert (tmp_path / "predictions.csv").read_text() == "of an earlier run\n"


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are Unix's")
def test_a_disk_that_fills_up_leaves_whole_rows(
    tnet: CommandLine, model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    table = tmp_path / "predictions.csv"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(Walk, "to_json", lambda *_, **__: "{}")
    advance = Progress.advance

    def noted(progress: Progress, result: Result) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (table.stat().st_size + 20, limits[1]))
        advance(progress, result)

    monkeypatch.setattr(Progress, "advance", noted)
    try:
        done = tnet("classify", folder, "--model", model, "--out", tmp_path, "--no-overlay")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.code == 6
    assert done.err == f"tnet: {table} cannot be written (No space left on device)\n"
    assert table.read_bytes().endswith(b"\n")
    assert [Path(row["image"]).name for row in rows(tmp_path)] == ["a.png"]


@pytest.mark.parametrize(("flags", "kept"), [([], 0), (["--json"], 3)])
def test_probabilities_are_kept_only_for_json(
    tnet: CommandLine,
    model: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    kept: int,
) -> None:
    from tnet.scripts import classify

    finished = []
    monkeypatch.setattr(classify, "_finish", lambda results, *_, **__: finished.extend(results))
    tnet("classify", folder, "--model", model, *flags)
    assert [len(result.probabilities) for result in finished] == [kept] * 3


def test_long_names_are_cut() -> None:
    long, wide = "x" * 252, "木" * 84
    paths = [Path(f"{n}.png") for n in (long, long + "y", wide, wide[:83] + "林", "x" * 250)]
    names = output_names(paths)
    assert len(set(names)) == len(names)
    assert names[0] == "x" * 250
    assert names[2] == "木" * 83
    assert all(len(f"{name}.json".encode()) <= 255 for name in names)


def test_many_images_of_one_name_get_names_at_once() -> None:
    names = output_names([Path(f"{number}/image.tif") for number in range(20_000)])
    assert names[-1] == "image-20000"
    assert len(set(names)) == 20_000


def test_a_long_name_does_not_stop_the_run(tnet: CommandLine, model: Path, tmp_path: Path) -> None:
    write_png(tmp_path / ("x" * 251 + ".png"), picture())
    out = tmp_path / "out"
    done = tnet("classify", tmp_path, "--model", model, "--out", out, "--overlay-size", 256)
    assert (done.code, done.err) == (0, "")
    assert (out / rows(out)[0]["walk"]).exists()
    assert len(list((out / "overlays").iterdir())) == 1


@pytest.mark.parametrize("side", [0.0, math.nan, math.inf])
def test_pixels_of_no_size_are_a_note(
    tnet: CommandLine, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, side: float
) -> None:
    monkeypatch.setattr(PillowPyramid, "mpp", property(lambda _: (side, side)))
    done = tnet("classify", folder / "a.png", "--model", model, "--json")
    assert done.code == 0, done.err
    (note,) = json.loads(done.out)["results"][0]["notes"]
    assert "say with --mpp" in note


def test_a_line_on_stderr_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\nb\x1b[2J.png")
    assert capsys.readouterr().err == "tnet: a\\nb\\x1b[2J.png\n"


def test_a_folder_that_is_none_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_file(tmp_path / "file" / "a.json", "{}")


@pytest.fixture
def demo_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tnet import bundle

    loaded = bundle.load(model)
    monkeypatch.setattr(bundle, "load", lambda _: loaded)


@pytest.fixture
def unmade(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What would have been made, had the demo come that far."""
    made: list[object] = []

    def make(*arguments: Any, **_: Any) -> list[object]:
        made.append(arguments)
        return []

    monkeypatch.setattr("tnet.datasets.synthetic.make_dataset", make)
    return made


@pytest.mark.usefixtures("demo_model")
def test_demo_into_a_file(tnet: CommandLine, tmp_path: Path, unmade: list[object]) -> None:
    (tmp_path / "file").write_text("kept")
    done = tnet("demo", tmp_path / "file")
    assert (done.code, unmade) == (2, [])
    assert (
        done.err == f"tnet: {tmp_path / 'file'} is a file; name a folder for slides and pictures\n"
    )
    below = tnet("demo", tmp_path / "file" / "below")
    assert (below.code, unmade) == (2, [])
    assert "below cannot be written, for something else is in its place (Not a dir" in below.err


@pytest.mark.usefixtures("demo_model")
def test_demo_where_writing_is_forbidden(
    tnet: CommandLine, tmp_path: Path, unmade: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "mkdir", raising(PermissionError(13, "Permission denied")))
    done = tnet("demo", tmp_path / "new")
    assert (done.code, unmade) == (6, [])
    assert done.err == f"tnet: {tmp_path / 'new'} cannot be written (Permission denied)\n"


@pytest.mark.usefixtures("demo_model")
@pytest.mark.parametrize(
    "error",
    [
        OSError(28, os.strerror(28)),
        ValueError("RESOURCE_EXHAUSTED: Error writing local file [os_error_code='28']"),
    ],
    ids=["python", "tensorstore"],
)
def test_demo_on_a_full_disk(
    tnet: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("tnet.datasets.synthetic.write_slide", raising(error))
    done = tnet("demo", tmp_path, "--slides", 1)
    assert done.code == 6
    assert done.err.splitlines()[-1].endswith(f"cannot be written ({os.strerror(28)})")
    assert "internal error" not in done.err


def test_demo_without_its_model_makes_no_slides(
    tnet: CommandLine, tmp_path: Path, unmade: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tnet.bundle.shipped", dict)
    done = tnet("demo", tmp_path / "new")
    assert (done.code, unmade) == (3, [])
    assert "demo" in done.err
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("demo_model")
def test_demo_with_a_small_slide(
    tnet: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tnet.datasets import synthetic

    make = synthetic.make_dataset

    def small(place: Path, count: int, **options: Any) -> list[synthetic.Slide]:
        return make(place, count, size=4096, workers=1, **options)

    monkeypatch.setattr(synthetic, "make_dataset", small)
    done = tnet("demo", tmp_path, "--slides", 1, "--json")
    assert done.code == 0, done.err
    assert all(line.startswith("tnet: ") for line in done.err.splitlines())
    (row,) = json.loads(done.out)["slides"]
    walk = Walk.from_json((tmp_path / "walks" / "slide-0000.json").read_text("utf-8"))
    assert row["said"] == (walk.label or walk.outcome)
    assert Path(row["picture"]).read_bytes().startswith(b"\x89PNG")
    assert "of 1 right" in tnet("demo", tmp_path, "--slides", 1).out


def test_a_folder_that_is_called_a_zarr_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "empty.zarr").mkdir()
    write_png(tmp_path / "good.png", np.full((64, 64, 3), 90, dtype=np.uint8))
    assert [path.name for path in find_images([str(tmp_path)])] == ["empty.zarr", "good.png"]
