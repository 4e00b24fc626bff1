"""``tnet classify``: what it finds, prints, writes and says, and with which code it leaves."""

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import CommandLine, Done, picture, write_model, write_png, write_zarr

from tnet.adapters.tiff import TiffPyramid
from tnet.bundle import load
from tnet.record import Walk
from tnet.replaying import Pixels, replay
from tnet.scripts.files import csv_header, csv_row
from tnet.scripts.inputs import Source, find_images, output_names
from tnet.scripts.output import Result

COLUMNS = (
    "image,walk,outcome,label,confidence,p_grass,p_=1+1,p_water,"
    "glimpses,pixels,share,seconds,width,height,mpp,error,notes"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_png(tmp_path_factory.mktemp("image") / "one.png", picture())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images and of what is none."""
    place = tmp_path / "many images"
    place.mkdir()
    for seed, name in enumerate(("b.png", "a.png", "ünï 木 x.png")):
        write_png(place / name, picture(seed=seed))
    write_zarr(place / "c.zarr", picture(seed=9))
    (place / "c.zarr.partial").mkdir()
    (place / "labels.csv").write_text("image\n")
    (place / ".hidden.png").write_bytes(b"")
    return place


def document(done: Done) -> dict[str, Any]:
    """Return the JSON document that is all of stdout."""
    read: dict[str, Any] = json.loads(done.out)
    assert list(read) == ["model", "results", "failed"]
    return read


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names(paths: "list[Source]") -> list[str]:
    return [path.name for path in paths]


def test_table_for_people(tnet: CommandLine, model: Path, image: Path) -> None:
    done = tnet("classify", image, "--model", model)
    assert (done.code, done.err) == (0, "")
    heading, line = done.out.splitlines()
    assert heading.split() == [
        "image",
        "class",
        "confidence",
        "glimpses",
        "looked",
        "at",
        "seconds",
    ]
    assert line.startswith(str(image))
    assert " 7 " in line


def test_json_is_all_of_stdout(tnet: CommandLine, model: Path, image: Path) -> None:
    done = tnet("classify", image, "--model", model, "--json")
    assert (done.code, done.err) == (0, "")
    read = document(done)
    (result,) = read["results"]
    assert (read["model"], read["failed"]) == (str(model), 0)
    assert result["image"] == str(image)
    assert result["outcome"] == "class"
    assert result["probabilities"][result["label"]] == result["confidence"]
    assert sum(result["probabilities"].values()) == pytest.approx(1)
    assert (result["glimpses"], result["pixels"]) == (7, 7 * 64 * 64)
    assert result["share"] == pytest.approx(7 * 64 * 64 / (120 * 90))
    assert (result["width"], result["height"], result["mpp"]) == (120, 90, None)
    assert "error" not in result


def test_nothing_is_written_unless_asked(
    tnet: CommandLine, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert tnet("classify", "a.png", "--model", model).code == 0
    assert sorted(folder.rglob("*")) == before


def test_files_of_results(tnet: CommandLine, model: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "results"
    done = tnet("classify", folder, "--model", model, "--out", out, "--overlay-size", 256, "--json")
    results = document(done)["results"]
    stems = ["a", "b", "c", "ünï 木 x"]
    assert (out / "predictions.csv").read_text(encoding="utf-8").splitlines()[0] == COLUMNS
    assert [Path(row["image"]).name for row in rows(out)] == [
        "a.png", "b.png", "c.zarr", "ünï 木 x.png",
    ]  # fmt: skip
    for row, result in zip(rows(out), results, strict=True):
        assert float(row["confidence"]) == result["confidence"]
        assert float(row["p_grass"]) == result["probabilities"]["grass"]
        assert row["error"] == row["notes"] == ""
        assert row["walk"] == result["walk"]
        assert Walk.from_json((out / row["walk"]).read_text("utf-8")).image == row["image"]
    assert sorted(path.stem for path in (out / "walks").iterdir()) == stems
    assert sorted(path.stem for path in (out / "overlays").iterdir()) == stems
    assert (out / "overlays" / "a.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "walks" / "a.json").read_text(encoding="utf-8")
    walk = Walk.from_json(text)
    assert walk.to_json(indent=1) == text
    assert walk.confidence == results[0]["confidence"]


def test_overlays_can_be_left_out(
    tnet: CommandLine, model: Path, image: Path, tmp_path: Path
) -> None:
    tnet("classify", image, "--model", model, "--out", tmp_path, "--no-overlay")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "one.json", "predictions.csv", "walks",
    ]  # fmt: skip


def test_an_overlay_that_fails_is_a_note(
    tnet: CommandLine, model: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("a tile is damaged")

    monkeypatch.setattr("tnet.adapters.overlay.draw_walk", broken)
    done = tnet("classify", image, "--model", model, "--out", tmp_path, "--json")
    assert done.code == 0
    note = "its overlay could not be drawn: a tile is damaged"
    assert document(done)["results"][0]["notes"] == [note]
    assert [(row["notes"], row["error"]) for row in rows(tmp_path)] == [(note, "")]
    assert done.err == f"tnet: note: {image}: {note}\n"


def test_formulas_stay_text() -> None:
    result = Result(image="@SUM(A1)", label="=1+1", error="-2+3", notes=("+a", "b"))
    text = csv_header(["=1+1"]) + csv_row(result, ["=1+1"])
    (row,) = csv.DictReader(text.splitlines())
    assert (row["image"], row["label"], row["error"]) == ("'@SUM(A1)", "'=1+1", "'-2+3")
    assert row["notes"] == "'+a; b"
    assert row["p_=1+1"] == ""


@pytest.fixture
def good_and_bad(folder: Path) -> Path:
    """One good image among bad ones."""
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:300])
    (folder / "c.zarr" / "zarr.json").write_text("{")
    (folder / "ünï 木 x.png").write_text("no image")
    return folder


@pytest.mark.parametrize("batch", [1, 4])
def test_one_bad_image_does_not_stop_the_others(
    tnet: CommandLine, model: Path, good_and_bad: Path, tmp_path: Path, batch: int
) -> None:
    out = tmp_path / "out"
    command = ("classify", good_and_bad, "missing.png", "--model", model, "--batch", batch)
    done = tnet(*command, "--out", out, "--no-overlay", "--json")
    assert done.code == 4
    read = document(done)
    assert read["failed"] == 4
    outcomes = [result["outcome"] for result in read["results"]]
    assert outcomes == ["class", "failed", "failed", "failed", "failed"]
    lines = done.err.splitlines()
    assert len(lines) == 4
    for line, result, row in zip(lines, read["results"][1:], rows(out)[1:], strict=True):
        assert line == f"tnet: {result['error']}"
        assert row["error"] == result["error"]
        assert result["image"] in line
        assert (row["walk"], row["label"], row["confidence"], row["p_grass"]) == ("", "", "", "")
    assert "does not exist" in lines[-1]


def test_code_3_when_all_fail(tnet: CommandLine, model: Path, tmp_path: Path) -> None:
    done = tnet("classify", tmp_path / "none.png", "--model", model)
    assert done.code == 3
    assert done.err == f"tnet: {tmp_path / 'none.png'} does not exist; check the name\n"
    assert "failed" in done.out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("codec\nfell over"), "{} cannot be read: codec"),
        (KeyError(), "{} cannot be read: KeyError"),
        (MemoryError(), "{}: there is not enough memory for it; try --batch 1, or a tiled file"),
    ],
)
def test_what_a_reader_may_raise(
    tnet: CommandLine,
    model: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    said: str,
) -> None:
    from tnet.adapters.image import PillowPyramid

    fetch = PillowPyramid._fetch

    def broken(self: PillowPyramid, *rectangle: int) -> Any:
        if self.name.endswith("b.png"):
            raise error
        return fetch(self, *rectangle)

    monkeypatch.setattr(PillowPyramid, "_fetch", broken)
    done = tnet("classify", folder, "--model", model, "--batch", 8)
    assert done.code == 4
    assert done.err == f"tnet: {said.format(folder / 'b.png')}\n"


def test_a_batch_gives_what_single_images_give(
    tnet: CommandLine, model: Path, folder: Path
) -> None:
    single = document(tnet("classify", folder, "--model", model, "--batch", 1, "--json"))
    together = document(tnet("classify", folder, "--model", model, "--batch", 3, "--json"))
    for one, other in zip(single["results"], together["results"], strict=True):
        assert one["label"] == other["label"]
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-5)


def test_a_blank_image_is_no_evidence(tnet: CommandLine, model: Path, tmp_path: Path) -> None:
    blank = write_png(tmp_path / "blank.png", np.full((90, 120, 3), 255, np.uint8))
    command = ("classify", blank, "--model", model)
    done = tnet(*command, "--out", tmp_path / "out", "--overlay-size", 256, "--json")
    assert done.code == 0
    (result,) = document(done)["results"]
    assert (result["outcome"], result["label"], result["confidence"]) == ("no evidence", None, None)
    assert set(result["probabilities"].values()) == {None}
    (row,) = rows(tmp_path / "out")
    assert (row["outcome"], row["label"], row["p_grass"]) == ("no evidence", "", "")
    assert "no evidence" in tnet(*command).out
    looked = document(tnet(*command, "--background", "off", "--json"))["results"][0]
    assert looked["outcome"] == "class"


def test_one_band_is_repeated(tnet: CommandLine, model: Path, tmp_path: Path) -> None:
    grey = write_png(tmp_path / "grey.png", picture(bands=1))
    done = tnet("classify", grey, "--model", model, "--json")
    assert done.code == 0
    assert document(done)["results"][0]["notes"] == [
        "its one band is shown to the model three times"
    ]


def test_bands(tnet: CommandLine, model: Path, tmp_path: Path) -> None:
    four = write_zarr(tmp_path / "four.zarr", picture(bands=4))
    plain = write_png(tmp_path / "plain.png", picture(bands=4)[..., [3, 2, 1]])
    done = tnet("classify", four, "--model", model)
    assert done.code == 3
    assert "4 bands" in done.err
    assert "--bands 1,2,3" in done.err
    chosen = document(tnet("classify", four, "--model", model, "--bands", "4,3,2", "--json"))
    same = document(tnet("classify", plain, "--model", model, "--json"))
    assert chosen["results"][0]["probabilities"] == pytest.approx(
        same["results"][0]["probabilities"], abs=1e-5
    )
    beyond = tnet("classify", four, "--model", model, "--bands", "5,1,1")
    assert beyond.code == 3
    assert "has 4 bands, and --bands asks for band 5" in beyond.err


def test_two_bands_fit_no_model(tnet: CommandLine, model: Path, tmp_path: Path) -> None:
    two = write_zarr(tmp_path / "two.zarr", picture(bands=2))
    assert "name another model" in tnet("classify", two, "--model", model).err


def test_range(tnet: CommandLine, model: Path, tmp_path: Path) -> None:
    wide = write_zarr(tmp_path / "wide.zarr", picture().astype(np.uint16) * 40)
    done = tnet("classify", wide, "--model", model)
    assert done.code == 3
    assert "uint16" in done.err
    assert "--range LOW,HIGH" in done.err
    scaled = tnet("classify", wide, "--model", model, "--range", "0,10200", "--json")
    assert document(scaled)["results"][0]["outcome"] == "class"
    assert tnet("classify", wide, "--model", model, "--range", "-5,10200").code == 0


def test_range_for_a_model_of_16_bits(tnet: CommandLine, image: Path, tmp_path: Path) -> None:
    deep = write_model(tmp_path / "deep.safetensors", dtype="uint16")
    done = tnet("classify", image, "--model", deep, "--range", "0,255")
    assert done.code == 3
    assert "leave --range out" in done.err


def test_pixel_size(tnet: CommandLine, image: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.safetensors", mpp=0.5)
    command = ("classify", image, "--model", model, "--json")
    assert document(tnet(*command))["results"][0]["notes"] == []
    near = document(tnet(*command, "--mpp", 0.6))["results"][0]
    assert (near["mpp"], near["notes"]) == (0.6, [])
    done = tnet(*command, "--mpp", 0.25)
    (note,) = document(done)["results"][0]["notes"]
    assert "0.25 µm a side" in note
    assert note in done.err
    assert done.code == 0


def test_depth(tnet: CommandLine, model: Path, image: Path) -> None:
    command = ("classify", image, "--model", model, "--json")

    def glimpses(*flags: str) -> int:
        count: int = document(tnet(*command, *flags))["results"][0]["glimpses"]
        return count

    assert glimpses("--glimpses", "0") == 1
    assert glimpses("--glimpses", "5") == 6
    assert glimpses("--glimpses", "2,2,1") == 1 + 2 + 4 + 4
    assert glimpses("--until", "steps") == 7
    assert glimpses("--until", "native") == 4
    assert glimpses("--until", "0.4", "--mpp", "1") > glimpses("--until", "100", "--mpp", "1") == 1
    done = tnet(*command, "--until", "0.5")
    assert done.code == 3
    assert "--mpp" in done.err


def test_draws_are_repeated_by_their_seed(tnet: CommandLine, model: Path, image: Path) -> None:
    command = ("classify", image, "--model", model, "--policy", "categorical", "--json")

    def p(*flags: object) -> object:
        return document(tnet(*command, *flags))["results"][0]["probabilities"]

    assert p("--seed", 3) == p("--seed", 3)
    assert p() == p("--seed", 0)
    assert any(p("--seed", 3) != p("--seed", seed) for seed in range(4, 9))


def test_finds_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = ["a.png", "b.png", "c.zarr", "ünï 木 x.png"]
    assert names(find_images([str(folder)])) == everything
    assert names(find_images([f"{folder}/*"])) == everything
    assert names(find_images([f"{folder.parent}/**"])) == everything
    assert names(find_images([f"{folder}/[ab].png"])) == ["a.png", "b.png"]
    assert names(find_images([f"{folder}/c.zarr", f"{folder}/a.png"])) == ["c.zarr", "a.png"]
    monkeypatch.chdir(folder)
    twice = find_images(["a.png", "./a.png", str(folder / "a.png"), "*.png"])
    assert names(twice) == ["a.png", "b.png", "ünï 木 x.png"]
    assert names(find_images(["**/*"])) == everything
    (folder / "odd[1].png").write_bytes(b"")
    assert names(find_images(["odd[1].png"])) == ["odd[1].png"]


def test_a_list_of_images(folder: Path) -> None:
    listed = folder / "list.txt"
    listed.write_bytes("\ufeffb.png\r\n\r\n# a.png\r\nünï 木 x.png\r\n*.zarr\r\n".encode())
    found = find_images([f"@{listed}"])
    assert names(found) == ["b.png", "ünï 木 x.png", "c.zarr"]
    assert all(path.exists() for path in found if isinstance(path, Path))


def test_output_names_differ() -> None:
    paths = map(Path, ("a/s.ome.zarr", "s.ome.tif", "b/S.svs", "s-2.png", "x.y.dat", "n.tar.png"))
    assert output_names(paths) == ["s", "s-2", "S-3", "s-2-2", "x.y.dat", "n.tar"]


def test_two_images_of_one_name(
    tnet: CommandLine, model: Path, folder: Path, tmp_path: Path
) -> None:
    other = write_png(tmp_path / "a.png", picture(seed=7))
    out = tmp_path / "out"
    tnet("classify", folder / "a.png", other, "--model", model, "--out", out, "--no-overlay")
    walks = [Walk.from_json((out / "walks" / n).read_text()) for n in ("a.json", "a-2.json")]
    assert [walk.image for walk in walks] == [str(folder / "a.png"), str(other)]


def malformed() -> dict[str, tuple[int, list[str]]]:
    """Return what users may get wrong: name -> exit code and arguments."""
    image, model = ["good.png"], ["--model", "m.safetensors"]
    both = [*image, *model]
    return {
        "nothing": (2, []),
        "no model": (2, image),
        "no image": (2, model),
        "empty image": (2, ["", *model]),
        "unknown model": (3, [*image, "--model", "nope"]),
        "model is a folder": (3, [*image, "--model", "empty"]),
        "model is truncated": (3, [*image, "--model", "cut.safetensors"]),
        "model is a pickle": (3, [*image, "--model", "pickle.safetensors"]),
        "model is a text": (3, [*image, "--model", "text.txt"]),
        "model is empty": (3, [*image, "--model", "zero.safetensors"]),
        "image is missing": (3, ["nope.png", *model]),
        "image is a text": (3, ["text.txt", *model]),
        "image is empty": (3, ["zero.png", *model]),
        "image has a long name": (3, ["x" * 5000, *model]),
        "folder without images": (2, ["empty", *model]),
        "pattern without images": (2, ["*.svs", *model]),
        "list is missing": (2, ["@nope.txt", *model]),
        "list is empty": (2, ["@zero.png", *model]),
        "list is no text": (2, ["@good.png", *model]),
        "list names nothing": (2, ["@comment.txt", *model]),
        "list of missing": (3, ["@text.txt", *model]),
        "glimpses are words": (2, [*both, "--glimpses", "many"]),
        "glimpses are empty": (2, [*both, "--glimpses", ""]),
        "glimpses end in a comma": (2, [*both, "--glimpses", "2,"]),
        "glimpses are fractions": (2, [*both, "--glimpses", "2.5"]),
        "glimpses below zero": (2, [*both, "--glimpses", "-1"]),
        "glimpses beyond the grid": (2, [*both, "--glimpses", "17,1"]),
        "bands from zero": (2, [*both, "--bands", "0,1,2"]),
        "bands are words": (2, [*both, "--bands", "red"]),
        "range of one": (2, [*both, "--range", "5"]),
        "range upside down": (2, [*both, "--range", "5,1"]),
        "range without end": (2, [*both, "--range", "0,inf"]),
        "pixel of no size": (2, [*both, "--mpp", "0"]),
        "pixel is no number": (2, [*both, "--mpp", "nan"]),
        "pixel is a word": (2, [*both, "--mpp", "large"]),
        "until a word": (2, [*both, "--until", "dawn"]),
        "until below zero": (2, [*both, "--until", "-1"]),
        "until infinity": (2, [*both, "--until", "inf"]),
        "background above one": (2, [*both, "--background", "1.5"]),
        "background a word": (2, [*both, "--background", "on"]),
        "unknown policy": (2, [*both, "--policy", "clever"]),
        "unknown device": (2, [*both, "--device", "abacus"]),
        "batch of none": (2, [*both, "--batch", "0"]),
        "seed below zero": (2, [*both, "--seed", "-1"]),
        "overlay too small": (2, [*both, "--overlay-size", "3"]),
        "out is a file": (2, [*both, "--out", "text.txt"]),
        "unknown flag": (2, [*both, "--glimpse", "1"]),
        "flag without value": (2, [*both, "--glimpses"]),
    }


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    place = tmp_path_factory.mktemp("mistakes")
    write_png(place / "good.png", picture())
    content = model.read_bytes()
    (place / "m.safetensors").write_bytes(content)
    (place / "cut.safetensors").write_bytes(content[: len(content) // 2])
    (place / "pickle.safetensors").write_bytes(pickle.dumps({"weights": 1}))
    (place / "text.txt").write_text("hello\n")
    (place / "comment.txt").write_text("# nothing\n\n")
    (place / "zero.png").write_bytes(b"")
    (place / "zero.safetensors").write_bytes(b"")
    (place / "empty").mkdir()
    return place


@pytest.mark.parametrize("mistake", malformed())
def test_a_mistake_is_told_in_one_sentence(
    tnet: CommandLine, mistakes: Path, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    monkeypatch.chdir(mistakes)
    code, arguments = malformed()[mistake]
    done = tnet("classify", *arguments, "--json")
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert "internal error" not in done.err
    told = [line for line in done.err.splitlines() if line.startswith("tnet: ")]
    assert len(told) == 1 or done.err.startswith("Usage:")
    assert not told or len(done.err.splitlines()) == 1
    if code == 2 or "model" in mistake:
        assert done.out == ""


def test_a_pickle_is_named_as_one(tnet: CommandLine, mistakes: Path, image: Path) -> None:
    done = tnet("classify", image, "--model", mistakes / "pickle.safetensors")
    assert "pickle" in done.err


def test_a_missing_model_lists_what_there_is(
    tnet: CommandLine, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tnet.bundle.shipped", lambda: {"one": Path(), "two": Path()})
    assert "one, two" in tnet("classify", image).err


def test_a_full_disk_is_code_6(
    tnet: CommandLine, model: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    done = tnet("classify", image, "--model", model, "--out", tmp_path)
    assert done.code == 6
    assert done.err.endswith("one.json cannot be written (No space left on device)\n")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_interrupted_run_keeps_its_results(
    tnet: CommandLine, model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tnet.traversal as traversal

    calls = iter(range(9))
    walk = traversal.walk

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return walk(*arguments, **options)

    monkeypatch.setattr(traversal, "walk", interrupted)
    out = tmp_path / "out"
    done = tnet("classify", folder, "--model", model, "--out", out, "--no-overlay")
    assert (done.code, done.out, done.err) == (130, "", "tnet: interrupted\n")
    assert [Path(row["image"]).name for row in rows(out)] == ["a.png", "b.png"]
    assert sorted(path.name for path in (out / "walks").iterdir()) == ["a.json", "b.json"]


def test_lines_of_progress(
    tnet: CommandLine, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tnet.scripts.progress._QUIET_SECONDS", 0.0)
    (folder / "b.png").write_bytes(b"")
    lines = tnet("classify", folder, "--model", model).err.splitlines()
    assert lines[0].startswith("tnet: 1 of 4 images, about ")
    assert lines[2].startswith("tnet: 2 of 4 images, 1 failed, about ")
    assert len(lines) == 4


def test_notes_do_not_flood(
    tnet: CommandLine, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tnet.scripts.progress._MOST_NOTES", 2)
    command = ("classify", folder, "--model", model, "--json")
    noted = "tnet.scripts.work.result_of"
    monkeypatch.setattr(noted, lambda image, *_: Result(image, notes=(image,)))
    lines = tnet(*command).err.splitlines()
    assert [line[:11] for line in lines] == ["tnet: note:"] * 3
    assert "further notes" in lines[-1]


def test_debug_shows_where_an_image_failed(
    tnet: CommandLine, model: Path, image: Path, tmp_path: Path
) -> None:
    done = tnet("--debug", "classify", image, tmp_path / "none.png", "--model", model)
    assert done.code == 4
    assert done.err.startswith("Traceback")
    assert done.err.splitlines()[-1].startswith("tnet: ")


def test_a_bar_on_a_terminal(
    tnet: CommandLine, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    done = tnet("classify", folder, "missing-é", "--model", model, "--batch", 3, "--json")
    assert done.code == 4
    assert len(document(done)["results"]) == 5
    assert "missing-é does not exist; check the name" in done.err
    assert "ünï 木 x.png and 1 more" in done.err
    assert "5/5" in done.err


def test_files_are_closed(
    tnet: CommandLine, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tifffile

    path = tmp_path / "one.tif"
    tifffile.imwrite(path, picture(), photometric="rgb")
    closed = []
    close = TiffPyramid.close

    def noted(self: TiffPyramid) -> None:
        closed.append(self.name)
        close(self)

    monkeypatch.setattr(TiffPyramid, "close", noted)
    tnet("classify", path, "--model", model)
    tnet("classify", path, "--model", model, "--bands", "9")
    assert closed == [str(path)] * 2


def shell(*arguments: object) -> list[str]:
    return [sys.executable, "-P", "-m", "tnet.scripts.main", *map(str, arguments)]


def test_from_a_shell_that_knows_only_ascii(model: Path, folder: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONWARNINGS": "error"}
    image = folder / "ünï 木 x.png"
    command = shell("classify", image, "missing-木", "--model", model, "--json")
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 4
    read = json.loads(done.stdout)
    assert [result["image"] for result in read["results"]] == [str(image), "missing-木"]
    assert done.stderr == b"tnet: missing-\\u6728 does not exist; check the name\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are Unix's")
def test_ctrl_c_in_a_shell(model: Path, folder: Path, tmp_path: Path) -> None:
    for seed in range(40):
        write_png(folder / f"more-{seed:02}.png", picture(seed=seed))
    out = tmp_path / "out"
    command = shell("classify", folder, "--model", model, "--out", out, "--overlay-size", 512)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (out / "predictions.csv").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, (b"", b"tnet: interrupted\n"))
    assert 1 <= len(rows(out)) < 44
    assert not list(out.rglob("*.partial"))
    for walk in (out / "walks").iterdir():
        Walk.from_json(walk.read_text(encoding="utf-8"))


def test_what_was_looked_at_is_kept(
    tnet: CommandLine, model: Path, image: Path, tmp_path: Path
) -> None:
    flags = ("--model", model, "--out", tmp_path, "--pixels", "--no-overlay")
    assert tnet("classify", image, *flags).code == 0
    record = Walk.from_json((tmp_path / "walks" / "one.json").read_text(encoding="utf-8"))
    kept = Pixels.from_bytes((tmp_path / "pixels" / "one.npz").read_bytes())
    assert kept.views.shape == (6, 64, 64, 3)
    np.testing.assert_allclose(replay(load(str(model)), record, kept), record.logits, atol=1e-5)
    assert not (tmp_path / "overlays").exists()


def test_pixels_need_a_folder(tnet: CommandLine, model: Path, image: Path) -> None:
    done = tnet("classify", image, "--model", model, "--pixels")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "--out" in done.err
