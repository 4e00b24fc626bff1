"""``tnet convert`` as a user runs it."""

import errno
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command_line import CommandLine, picture, write_png, write_zarr
from numpy.random import default_rng
from shared_data import shared_folder

from tnet.adapters import open_pyramid, verify
from tnet.adapters.storage.locking import locked
from tnet.adapters.storage.seal import read_seal
from tnet.adapters.storage.staging import stage_of


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    write_png(folder / "a.png", picture(300, 200, seed=1))
    tifffile.imwrite(folder / "b.tif", picture(260, 270, seed=2), tile=(64, 64))
    return folder


def test_one_image_to_one_store(tnet: CommandLine, slides: Path, tmp_path: Path) -> None:
    done = tnet("convert", slides / "a.png", tmp_path / "out" / "one.zarr")
    assert done.code == 0
    assert "converted" in done.out
    assert "0.06" in done.out  # megapixels
    assert read_seal(tmp_path / "out" / "one.zarr") is not None


def test_a_folder_to_a_folder_of_stores(tnet: CommandLine, slides: Path, tmp_path: Path) -> None:
    done = tnet("convert", slides, tmp_path / "out", "--json")
    assert done.code == 0
    document = json.loads(done.out)
    assert document["failed"] == 0
    names = [Path(result["destination"]).name for result in document["results"]]
    assert names == ["a.zarr", "b.zarr"]
    for result in document["results"]:
        assert result["outcome"] == "converted"
        assert result["levels"] == 2
        assert result["bytes"] > 1000
        assert result["error"] is None
        with open_pyramid(result["source"]) as one, open_pyramid(result["destination"]) as other:
            assert (one.width, one.height) == (other.width, other.height)


def test_beside_their_sources(tnet: CommandLine, slides: Path) -> None:
    assert tnet("convert", slides, slides).code == 0
    done = tnet("convert", slides, slides, "--json")
    assert done.code == 0
    outcomes = [result["outcome"] for result in json.loads(done.out)["results"]]
    assert outcomes == ["already converted", "already converted"]


def test_stores_that_would_go_where_they_are(tnet: CommandLine, slides: Path) -> None:
    write_zarr(slides / "c.zarr", picture(20, 10))
    for name in (slides / "c.zarr", slides / "x.zarr", f"{slides}/*.zarr"):
        done = tnet("convert", name, slides)
        assert (done.code, done.out) == (2, "")
        assert "name another destination" in done.err


def test_planes_that_stay_behind_are_told_of(tnet: CommandLine, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "pages.tif") as tiff:
        for _ in range(3):
            tiff.write(picture(), photometric="rgb", metadata=None)
    done = tnet("convert", tmp_path / "pages.tif", tmp_path / "pages.zarr", "--json")
    assert done.code == 0
    (result,) = json.loads(done.out)["results"]
    assert "several planes" in result["notes"][0]
    assert result["notes"][0] in done.err


def test_nobody_is_told_to_convert_while_converting(tnet: CommandLine, tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", picture(2100, 2100))
    with open_pyramid(path) as image:
        assert "converted to a zarr pyramid" in str(image.notes)
    done = tnet("convert", path, tmp_path / "a.zarr")
    assert (done.code, done.err) == (0, "")


def test_one_bad_file_does_not_stop_the_others(
    tnet: CommandLine, slides: Path, tmp_path: Path
) -> None:
    (slides / "aa.tif").write_bytes(b"II*\0broken")
    done = tnet("convert", slides, tmp_path / "out", "--json")
    assert done.code == 4
    results = json.loads(done.out)["results"]
    assert [result["outcome"] for result in results] == ["converted", "failed", "converted"]
    assert "aa.tif" in results[1]["error"]
    assert "aa.tif" in done.err
    assert "Traceback" not in done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.zarr", "b.zarr"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["a.png", "out.zarr", "--codec", "jpg"], 2, "there is no codec 'jpg'"),
        (["a.png", "out.zarr", "--codec", "jpeg:0"], 2, "a quality from 1 to 100"),
        (["a.png", "out.zarr", "--codec", "source"], 3, "leave --codec out"),
        (["a.png", "b.tif", "out.zarr"], 2, "name a folder that does not end in .zarr"),
        (["a.png", "b.tif"], 2, "b.tif is a file"),
        (["missing.tif", "out.zarr"], 3, "missing.tif does not exist"),
        (["a.png", "out.zarr", "--mpp", "-1"], 2, "--mpp must be above 0"),
        (["a.png", "out.zarr", "--max-pixels", "1000"], 3, "--max-pixels"),
        (["a.png", "out.zarr", "--max-memory", "lots"], 2, "--max-memory takes a size"),
        (["https://host/a.zarr", "out.zarr"], 2, "copy the image to a disk"),
        (["a.png", "b.tif/out.zarr"], 2, "something else is in its place"),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    tnet: CommandLine,
    slides: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(slides)
    done = tnet("convert", *arguments)
    assert done.code == code
    assert said in done.err
    assert done.err.count("\n") == 1
    assert sorted(path.name for path in slides.iterdir()) == ["a.png", "b.tif"]


def test_another_store_is_not_overwritten_unasked(
    tnet: CommandLine, slides: Path, tmp_path: Path
) -> None:
    store = write_zarr(tmp_path / "mine.zarr", picture(20, 10))
    before = sorted(store.rglob("*"))
    done = tnet("convert", slides / "a.png", store)
    assert done.code == 2
    assert "--overwrite" in done.err
    assert sorted(store.rglob("*")) == before
    assert tnet("convert", slides / "a.png", store, "--overwrite").code == 0
    assert read_seal(store) is not None


def test_the_size_of_a_pixel_is_what_the_user_says(
    tnet: CommandLine, slides: Path, tmp_path: Path
) -> None:
    assert tnet("convert", slides / "a.png", tmp_path / "a.zarr", "--mpp", "0.25").code == 0
    with open_pyramid(tmp_path / "a.zarr") as image:
        assert image.mpp == (0.25, 0.25)


def test_label_and_macro_stay_behind_unless_asked_for(tnet: CommandLine, tmp_path: Path) -> None:
    source = shared_folder("data", "files", "wsi", "CMU-1-Small-Region.svs")
    assert tnet("convert", source, tmp_path / "without.zarr").code == 0
    assert not (tmp_path / "without.zarr" / "associated").exists()
    assert tnet("convert", source, tmp_path / "with.zarr", "--associated").code == 0
    with open_pyramid(tmp_path / "with.zarr" / "associated" / "label") as image:
        assert (image.width, image.height) == (387, 463)
    with open_pyramid(tmp_path / "with.zarr") as image:
        assert (image.width, image.height) == (2220, 2967)


def write_large(path: Path) -> Path:
    """Write a TIFF whose conversion takes a second or more."""
    tile = default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    tifffile.imwrite(
        path,
        (tile for _ in range(100)),
        shape=(5120, 5120, 3),
        dtype=np.uint8,
        tile=(512, 512),
    )
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-P", "-m", "tnet.scripts.main", *map(str, arguments)]


def test_interrupted_it_says_how_to_go_on(tmp_path: Path) -> None:
    source, store = write_large(tmp_path / "large.tif"), tmp_path / "large.zarr"
    with subprocess.Popen(
        command("convert", source, store), stderr=subprocess.PIPE, text=True
    ) as process:
        shards = tmp_path / ".large.zarr.partial" / "0" / "c"
        while not shards.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again" in said
    assert "Traceback" not in said
    assert not store.exists()


def test_a_limit_on_files_is_a_full_disk(tmp_path: Path) -> None:
    """The system refuses in the middle of a shard."""
    source, store = write_large(tmp_path / "large.tif"), tmp_path / "large.zarr"
    limited = subprocess.run(
        command("convert", source, store),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)),
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert limited.returncode == 6
    assert "cannot be written (File too large)" in limited.stderr
    assert "run the same command again" in limited.stderr
    assert "Traceback" not in limited.stderr
    assert not store.exists()


@pytest.mark.parametrize(
    ("image", "store"),
    [
        ("x/../a.zarr", "a.zarr"),
        ("link.zarr", "a.zarr"),
        ("a.zarr", "link.zarr"),
        ("a.zarr/0", "a.zarr"),
        ("a.zarr", "a.zarr/0/b.zarr"),
        ("a.zarr", "a.zarr/b"),
    ],
)
def test_an_image_is_not_replaced_by_its_store_by_whatever_name(
    tnet: CommandLine, slides: Path, monkeypatch: pytest.MonkeyPatch, image: str, store: str
) -> None:
    monkeypatch.chdir(slides)
    tnet("convert", "a.png", "a.zarr")
    Path("x").mkdir()
    Path("link.zarr").symlink_to("a.zarr")
    before = {path: path.is_dir() or path.read_bytes() for path in slides.rglob("*")}
    done = tnet("convert", image, store, "--overwrite", "--codec", "jpeg:50")
    assert done.code == 2
    assert "name another destination" in done.err
    assert before == {path: path.is_dir() or path.read_bytes() for path in slides.rglob("*")}


def test_a_full_disk_ends_a_batch_and_its_results_are_told(
    tnet: CommandLine, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert tnet("convert", slides / "a.png", tmp_path / "out").code == 0
    monkeypatch.setattr("tnet.adapters.storage.staging.write_pieces", full)
    write_png(slides / "c.png", picture())
    done = tnet("convert", slides, tmp_path / "out", "--json")
    assert done.code == 6
    outcomes = [result["outcome"] for result in json.loads(done.out)["results"]]
    assert outcomes == ["already converted", "failed"]
    assert "No space left on device" in done.err


def test_nobody_is_told_to_delete_what_another_process_writes(
    tnet: CommandLine, slides: Path, tmp_path: Path
) -> None:
    store = tmp_path / "a.zarr"
    with locked(stage_of(store), store):
        done = tnet("convert", slides / "a.png", store)
    assert done.code == 5
    assert "is being written by process" in done.err
    assert done.err.count("\n") == 1


def test_an_image_by_another_name(tnet: CommandLine, slides: Path, tmp_path: Path) -> None:
    (tmp_path / "other.tif").symlink_to(slides / "b.tif")
    assert tnet("convert", tmp_path / "other.tif", tmp_path / "o.zarr").code == 0
    assert tnet("link", tmp_path / "other.tif", tmp_path / "l.zarr").code == 0
    with open_pyramid(tmp_path / "l.zarr") as image:
        assert (image.width, image.height) == (260, 270)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_without_streams(slides: Path, tmp_path: Path, closed: str) -> None:
    source, store = slides / "a.png", tmp_path / "a.zarr"
    line = shlex.join(command("convert", source, store)) + f" {closed}"
    assert subprocess.run(["bash", "-c", line], check=False).returncode == 0
    assert verify(store).outcome == "whole"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_when_what_is_printed_finds_no_room(slides: Path, tmp_path: Path) -> None:
    line = shlex.join(command("convert", slides / "a.png", tmp_path / "a.zarr")) + " >/dev/full"
    done = subprocess.run(["bash", "-c", line], check=False, capture_output=True, text=True)
    assert done.returncode == 6
    assert done.stderr == "tnet: what was printed cannot be written (no space left)\n"
    assert verify(tmp_path / "a.zarr").outcome == "whole"


def test_levels_that_nobody_knows_are_refused(
    tnet: CommandLine, slides: Path, tmp_path: Path
) -> None:
    source = next(slides.glob("*.tif*"))
    for options, said in (
        (["--levels", "best"], "'own', 'mean'"),
        (["--levels", "mean", "--codec", "source"], "leave --levels out"),
    ):
        done = tnet("convert", source, tmp_path / "copy.zarr", *options)
        assert done.code == 2
        assert said in done.err
        assert list(tmp_path.glob("*.zarr")) == []
