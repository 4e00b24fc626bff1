"""Conversions that are interrupted, repeated, refused or short of room, and what they leave."""

import errno
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from itertools import count, cycle
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from command_line import picture
from make_images import write_levels
from numpy.typing import NDArray
from PIL import Image

from tnet.adapters import open_pyramid
from tnet.adapters.storage import layout
from tnet.adapters.storage.conversion import convert
from tnet.adapters.storage.disk import to_disk
from tnet.adapters.storage.locking import BusyError
from tnet.adapters.storage.seal import SEAL, read_seal
from tnet.adapters.storage.space import SpaceError
from tnet.adapters.storage.staging import stage_of, staged
from tnet.adapters.storage.wanted import Wanted
from tnet.errors import DataError, UsageError
from tnet.geometry import Region

SHARD = 512
# Converts in a process that can be killed; prints a line whenever a part is done.
CHILD = """
import sys
from pathlib import Path
from tnet.adapters.storage import layout
layout.SHARD = int(sys.argv[3])
from tnet.adapters.storage.conversion import convert
from tnet.adapters.storage.wanted import Wanted
wanted = Wanted(codec=sys.argv[4], threads=2)
print("ready", flush=True)
convert(Path(sys.argv[1]), Path(sys.argv[2]), wanted, lambda _: print("part", flush=True))
"""


def noise(width: int, height: int, bands: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (height, width, bands), dtype=np.uint8)


def write_tiff(path: Path, pixels: NDArray[np.uint8], compression: str = "zlib") -> Path:
    return write_levels(path, [pixels], tile=(128, 128), compression=compression)


def content(store: Path) -> dict[str, bytes]:
    """Return every file of a store."""
    return {
        str(file.relative_to(store)): file.read_bytes()
        for file in sorted(store.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SHARD", SHARD)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tiff(tmp_path / "scan.tif", noise(1500, 1100))


def killed_after(source: Path, store: Path, parts: int, codec: str) -> None:
    """Start a conversion and kill it when some parts are done, or at the latest when it ends."""
    command = [sys.executable, "-P", "-c", CHILD, str(source), str(store), str(SHARD), codec]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        for _ in range(parts):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ("codec", "levels", "moments"),
    [("lossless", 1, (0, 1)), ("lossless", 3, (2,)), ("jpeg:85", 1, (3,)), ("source", 1, (1,))],
)
def test_killed_anywhere_and_run_again_the_store_is_the_same_to_the_byte(
    tmp_path: Path, codec: str, levels: int, moments: tuple[int, ...]
) -> None:
    source = write_levels(
        tmp_path / "scan.tif",
        [noise(1500, 1100), noise(375, 275), noise(93, 68)][:levels],
        tile=(128, 128),
        compression="jpeg" if codec == "source" else "zlib",
    )
    whole = tmp_path / "whole.zarr"
    convert(source, whole, Wanted(codec=codec))
    store = tmp_path / "store.zarr"
    for parts in moments:
        killed_after(source, store, parts, codec)
        if not store.exists():
            assert not (stage_of(store) / SEAL).exists()
    convert(source, store, Wanted(codec=codec))
    assert content(store) == content(whole)
    assert not stage_of(store).exists()


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "compression"), [("lossless", "zlib"), ("source", "jpeg")])
def test_thirty_kills_at_random_moments(tmp_path: Path, codec: str, compression: str) -> None:
    source = write_tiff(tmp_path / "scan.tif", noise(3000, 2300), compression)
    whole, store = tmp_path / "whole.zarr", tmp_path / "store.zarr"
    wanted = Wanted(codec=codec)
    convert(source, whole, wanted)
    draw = random.Random(0)
    for _ in range(30):
        command = [sys.executable, "-P", "-c", CHILD, str(source), str(store), str(SHARD)]
        with subprocess.Popen([*command, codec], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            child.stdout.readline()
            try:
                child.wait(draw.uniform(0, 0.5))
            except subprocess.TimeoutExpired:
                child.kill()
        if store.exists():
            assert content(store) == content(whole)
            shutil.rmtree(store)
    convert(source, store, wanted)
    assert content(store) == content(whole)


class Stopped(Exception):
    """Raised where a test wants a conversion to end."""


def stopping_after(parts: int) -> Callable[[int], None]:
    """Return what ends a conversion when some parts are done."""
    done = count(1)

    def stop(_: int) -> None:
        if next(done) > parts:
            raise Stopped

    return stop


def test_what_was_done_is_not_done_again(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    with pytest.raises(Stopped):
        convert(source, store, told=stopping_after(3))
    kept = {file: file.stat().st_mtime_ns for file in stage_of(store).glob("0/c/**/*")
            if file.is_file()}  # fmt: skip
    assert kept
    assert convert(source, store).outcome == "resumed"
    for file, written in kept.items():
        moved = store / file.relative_to(stage_of(store))
        assert moved.stat().st_mtime_ns == written


def test_run_again_nothing_is_written(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    assert convert(source, store).outcome == "converted"
    before = {file: file.stat().st_mtime_ns for file in store.rglob("*")}
    assert convert(source, store).outcome == "already converted"
    assert {file: file.stat().st_mtime_ns for file in store.rglob("*")} == before


def test_another_source_starts_anew(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"

    with pytest.raises(Stopped):
        convert(source, store, told=stopping_after(0))
    write_tiff(source, noise(1500, 1100, seed=1))
    assert convert(source, store).outcome == "converted"
    with open_pyramid(store) as image:
        seen = image.read(Region(0, 0, 1500, 1100), (1500, 1100))
    np.testing.assert_array_equal(seen, noise(1500, 1100, seed=1))


def test_a_torn_journal_costs_only_what_it_does_not_tell(source: Path, tmp_path: Path) -> None:
    store, whole = tmp_path / "store.zarr", tmp_path / "whole.zarr"
    convert(source, whole)
    with pytest.raises(Stopped):
        convert(source, store, told=stopping_after(5))
    journal = stage_of(store) / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    convert(source, store)
    assert content(store) == content(whole)


def test_after_the_machine_went_down_the_journal_is_not_believed(
    source: Path, tmp_path: Path
) -> None:
    store, whole = tmp_path / "store.zarr", tmp_path / "whole.zarr"
    convert(source, whole)
    with pytest.raises(Stopped):
        convert(source, store, told=stopping_after(5))
    shard = next(file for file in sorted(stage_of(store).glob("0/c/**/*")) if file.is_file())
    shard.write_bytes(bytes(shard.stat().st_size))  # listed, and never reached the disk
    journal = stage_of(store) / "journal.jsonl"
    first, _, rest = journal.read_bytes().split(b"\n", 2)
    journal.write_bytes(b"\n".join([first, b'{"boot": "another"}', rest]))
    convert(source, store)
    assert content(store) == content(whole)


def test_sealed_and_killed_before_the_rename(source: Path, tmp_path: Path) -> None:
    store, whole = tmp_path / "store.zarr", tmp_path / "whole.zarr"
    convert(source, whole)
    shutil.copytree(whole, stage_of(store))
    assert convert(source, store).outcome == "resumed"
    assert content(store) == content(whole)


def test_nobody_else_may_write_the_same(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    with staged(store, {"source": {}, "settings": {}}, 0), pytest.raises(BusyError) as refused:
        convert(source, store)
    assert str(store) in str(refused.value)
    assert f"process {os.getpid()}" in str(refused.value)
    assert refused.value.exit_code == 5
    assert convert(source, store).outcome == "converted"


def test_a_dead_process_leaves_no_lock(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    killed_after(source, store, 1, "lossless")
    convert(source, store)
    assert read_seal(store) is not None


def test_something_else_at_the_destination_is_left_alone(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    zarr.create_array(store, shape=(4, 4), dtype="uint8")[:] = 7
    before = content(store)
    with pytest.raises(UsageError, match=r"exists already.*--overwrite"):
        convert(source, store)
    assert content(store) == before
    assert convert(source, store, Wanted(overwrite=True)).outcome == "converted"
    assert read_seal(store) is not None
    with pytest.raises(UsageError, match=r"scan\.tif with --codec lossless"):
        convert(source, store, Wanted(codec="jpeg:80"))


def test_the_old_store_stands_until_the_new_one_is_whole(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    convert(source, store)
    before = content(store)

    with pytest.raises(Stopped):
        convert(source, store, Wanted(codec="jpeg:80", overwrite=True), stopping_after(0))
    assert content(store) == before


def test_killed_between_the_two_renames_the_old_store_comes_back(
    source: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store.zarr"
    convert(source, store)
    store.rename(tmp_path / ".store.zarr.replaced")
    assert convert(source, store).outcome == "already converted"
    assert not (tmp_path / ".store.zarr.replaced").exists()


def full_after(writes: int) -> Callable[[int, list[bytes]], int]:
    """Return what writes as usual for a while, and then as a full disk lets it."""
    done = count(1)
    write = os.writev

    def limited(descriptor: int, pieces: list[bytes]) -> int:
        if next(done) > writes:
            os.write(descriptor, b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, pieces)

    return limited


def test_a_full_disk_ends_it_and_room_lets_it_go_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, whole = tmp_path / "store.zarr", tmp_path / "whole.zarr"
    convert(source, whole)
    for writes in (1, 5, 9):
        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", full_after(writes))
            with pytest.raises(OSError, match="No space left"):
                convert(source, store)
        assert not store.exists()
    convert(source, store)
    assert content(store) == content(whole)


def test_too_little_room_is_told_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=2_000_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(SpaceError, match=r"needs about 6\.\d+ MiB.*1\.907 MiB left") as refused:
        convert(source, tmp_path / "store.zarr")
    assert refused.value.exit_code == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.tif"]


def test_a_damaged_tile_ends_it_and_is_named(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "scan.tif", noise(1500, 1100))
    with tifffile.TiffFile(source) as tiff:
        place = tiff.pages.first.dataoffsets[40]
    data = bytearray(source.read_bytes())
    data[place : place + 200] = bytes(200)
    source.write_bytes(data)
    with pytest.raises(DataError, match=r"tile \(number 40\)"):
        convert(source, tmp_path / "store.zarr")
    assert not (tmp_path / "store.zarr").exists()


def test_a_source_that_changes_meanwhile_is_refused(source: Path, tmp_path: Path) -> None:
    def touch(_: int) -> None:
        os.utime(source, ns=(0, 0))

    with pytest.raises(DataError, match="changed while it was converted"):
        convert(source, tmp_path / "store.zarr", told=touch)
    assert not (tmp_path / "store.zarr").exists()


def test_source_codec_keeps_every_tile_and_pixel(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "scan.tif", picture(1500, 1100), "jpeg")
    convert(source, tmp_path / "store.zarr", Wanted(codec="source"))
    tiles = {}
    with tifffile.TiffFile(source) as tiff:
        page = tiff.pages.first
        for number, (offset, count) in enumerate(
            zip(page.dataoffsets, page.databytecounts, strict=True)
        ):
            tiff.filehandle.seek(offset)
            tiles[number] = tiff.filehandle.read(count)
    shards = b"".join(file.read_bytes() for file in (tmp_path / "store.zarr/0/c").rglob("*")
                      if file.is_file())  # fmt: skip
    assert all(tile in shards for tile in tiles.values())
    region = Region(0, 0, 1500, 1100)
    with open_pyramid(source) as one, open_pyramid(tmp_path / "store.zarr") as other:
        np.testing.assert_array_equal(
            one.read(region, (1500, 1100)), other.read(region, (1500, 1100))
        )
        assert len(other.levels) == 4


def scattered(source: Path) -> None:
    """Put the tiles of a TIFF elsewhere: out of order, with gaps of many sizes; leave one out."""
    with tifffile.TiffFile(source) as tiff:
        page = tiff.pages.first
        places, sizes = (page.tags[tag] for tag in ("TileOffsets", "TileByteCounts"))
        offsets, counts = list(page.dataoffsets), list(page.databytecounts)
    data = bytearray(source.read_bytes())
    order = [*reversed(range(30)), *range(30, len(offsets))]
    for number, gap in zip(order, cycle((0, 0, 3, 0, 70_000)), strict=False):
        tile = data[offsets[number] : offsets[number] + counts[number]]
        data += bytes(gap)
        offsets[number] = len(data)
        data += tile
    offsets[7] = counts[7] = 0
    for tag, values in ((places, offsets), (sizes, counts)):
        code = {3: "H", 4: "I"}[int(tag.dtype)]
        struct.pack_into(f"<{len(values)}{code}", data, tag.valueoffset, *values)
    source.write_bytes(data)


def test_tiles_are_found_wherever_they_lie(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "scan.tif", picture(1500, 1100), "jpeg")
    scattered(source)
    convert(source, tmp_path / "store.zarr", Wanted(codec="source"))
    region = Region(0, 0, 1500, 1100)
    with open_pyramid(source) as one, open_pyramid(tmp_path / "store.zarr") as other:
        pixels = one.read(region, (1500, 1100))
        assert not pixels[:128, 7 * 128 : 8 * 128].any()
        np.testing.assert_array_equal(pixels, other.read(region, (1500, 1100)))


def test_source_codec_refuses_what_is_no_jpeg(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leave --codec out"):
        convert(source, tmp_path / "store.zarr", Wanted(codec="source"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.tif"]


def test_jpeg_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, np.zeros((50, 40), np.uint16))
    with pytest.raises(DataError, match="1 band of uint16"):
        convert(path, tmp_path / "store.zarr", Wanted(codec="jpeg:90"))


def test_what_is_said_of_an_image_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    tifffile.imwrite(
        path,
        np.arange(300 * 400 * 2, dtype=np.uint16).reshape(2, 300, 400),
        photometric="minisblack",
        metadata={
            "axes": "CYX",
            "PhysicalSizeX": 0.5,
            "PhysicalSizeY": 0.25,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeYUnit": "µm",
            "Channel": {"Name": ["DAPI", "GFP"]},
        },
    )
    convert(path, tmp_path / "store.zarr")
    with open_pyramid(path) as one, open_pyramid(tmp_path / "store.zarr") as other:
        assert other.spacing == one.spacing == (0.5, 0.25)
        assert other.mpp == one.mpp
        assert other.background == one.background
        assert [(v.width, v.height) for v in other.levels] == [(400, 300), (200, 150)]
    group = json.loads((tmp_path / "store.zarr/zarr.json").read_text())
    channels = group["attributes"]["ome"]["omero"]["channels"]
    assert [channel["label"] for channel in channels] == ["DAPI", "GFP"]


def test_a_picture_of_one_pixel(tmp_path: Path) -> None:
    path = tmp_path / "dot.png"
    Image.new("L", (1, 1), 9).save(path)
    convert(path, tmp_path / "store.zarr")
    with open_pyramid(tmp_path / "store.zarr") as image:
        assert image.read(Region(0, 0, 1, 1), (1, 1)).tolist() == [[[9]]]


def test_what_is_no_store_is_never_replaced(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "thesis.zarr"
    folder.mkdir()
    (folder / "chapter.txt").write_text("one")
    with pytest.raises(UsageError, match="is no zarr store"):
        convert(source, folder, Wanted(overwrite=True))
    assert (folder / "chapter.txt").read_text() == "one"
    inside = folder / source.name
    source.rename(inside)
    with pytest.raises(UsageError, match="holds the image"):
        convert(inside, folder, Wanted(overwrite=True))
    assert inside.exists()


def test_a_zarr_folder_whose_pixels_changed_is_another_source(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "in.zarr", shape=(300, 300), chunks=(64, 64), dtype="u1")
    array[:] = 10
    convert(tmp_path / "in.zarr", tmp_path / "out.zarr")
    array[:] = 200
    with pytest.raises(UsageError, match="exists already"):
        convert(tmp_path / "in.zarr", tmp_path / "out.zarr")
    convert(tmp_path / "in.zarr", tmp_path / "out.zarr", Wanted(overwrite=True))
    with open_pyramid(tmp_path / "out.zarr") as image:
        assert (image.read(Region(0, 0, 300, 300), (30, 30)) == 200).all()


def test_a_damaged_store_is_not_called_converted(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    convert(source, store)
    (store / "0/c/0/1/1").unlink()
    with pytest.raises(DataError, match=r"0/c/0/1/1 is not what it was.*--repair"):
        convert(source, store)
    assert convert(source, store, Wanted(overwrite=True)).outcome == "converted"
    assert (store / "0/c/0/1/1").exists()


def test_while_a_store_gets_its_name_nobody_takes_it_for_one_that_is_left(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store.zarr"
    refused = []

    def meanwhile(path: Path) -> None:
        to_disk(path)
        if path == stage_of(store) and not (path / "journal.jsonl").exists():
            with pytest.raises(BusyError):
                convert(source, store)
            refused.append(path)

    monkeypatch.setattr("tnet.adapters.storage.staging.to_disk", meanwhile)
    convert(source, store)
    assert refused
    assert {path.name for path in store.iterdir()} == {"0", "1", "2", "3", "seal", "zarr.json"}


def test_killed_between_the_last_two_steps(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    convert(source, store)
    before = content(store)
    (store / "lock").touch()
    (store / "holder").touch()
    shutil.copytree(store, tmp_path / ".store.zarr.replaced")
    assert convert(source, store).outcome == "already converted"
    assert content(store) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.tif", "store.zarr"]


def test_a_name_as_long_as_a_name_may_be(source: Path, tmp_path: Path) -> None:
    store = tmp_path / f"{'n' * 250}.zarr"
    with pytest.raises(Stopped):
        convert(source, store, told=stopping_after(3))
    assert convert(source, store).outcome == "resumed"
    assert sorted(path.name for path in tmp_path.iterdir()) == [store.name, "scan.tif"]


def test_a_source_that_is_gone_in_the_end_is_no_fault_of_the_disk(
    source: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"scan.tif cannot be read \(No such file"):
        convert(source, tmp_path / "store.zarr", told=lambda _: source.unlink(missing_ok=True))


def test_a_tile_that_is_no_jpeg_is_not_moved(source: Path, tmp_path: Path) -> None:
    write_tiff(source, noise(1500, 1100), "jpeg")
    with tifffile.TiffFile(source) as tiff:
        start = tiff.pages.first.dataoffsets[7]
    with source.open("r+b") as file:
        file.seek(start)
        file.write(bytes(100))
    with pytest.raises(DataError, match=r"a tile \(number 7\) that is no JPEG"):
        convert(source, tmp_path / "store.zarr", Wanted(codec="source"))


def test_a_tile_of_one_byte_is_no_jpeg(source: Path, tmp_path: Path) -> None:
    write_tiff(source, noise(1500, 1100), "jpeg")
    with tifffile.TiffFile(source, mode="r+") as tiff:
        lengths = tiff.pages.first.tags["TileByteCounts"]
        lengths.overwrite([*lengths.value[:7], 1, *lengths.value[8:]])
    with pytest.raises(DataError, match=r"a tile \(number 7\) that is no JPEG"):
        convert(source, tmp_path / "store.zarr", Wanted(codec="source"))
