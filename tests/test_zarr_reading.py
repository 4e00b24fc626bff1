"""Zarr stores are read exactly or not at all: damage, gaps, links and absurd sizes are named."""

import json
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import imagecodecs
import numpy as np
import pytest
import zarr
from make_images import Pixels, truth, write_ome_zarr, write_zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

from tnet.adapters import open_pyramid
from tnet.adapters.limits import Limits
from tnet.adapters.storage.codecs import with_checksum
from tnet.adapters.storage.seal import SEAL, Seal, Sealed, digest_of
from tnet.adapters.zarr.opening import open_zarr
from tnet.errors import DataError, UnsupportedImage
from tnet.geometry import Region
from tnet.pyramid import Pyramid

WIDTH, HEIGHT = 300, 200
SIZE = (WIDTH, HEIGHT)
WHOLE = Region(0, 0, WIDTH, HEIGHT)
ROOT = Path(__file__).resolve().parents[1]


def packed(chunks: Sequence[bytes | None]) -> bytes:
    """Return a shard as the specification has it: chunks, their index, its checksum."""
    index, place = b"", 0
    for chunk in chunks:
        absent = 2**64 - 1
        index += struct.pack("<2Q", *((absent, absent) if chunk is None else (place, len(chunk))))
        place += len(chunk or b"")
    checksum = google_crc32c.value(index).to_bytes(4, "little")
    return b"".join(chunk for chunk in chunks if chunk) + index + checksum


def whole(image: Pyramid) -> Pixels:
    return image.read(Region(0, 0, image.width, image.height), (image.width, image.height))


def _look(image: Pyramid | Path, regions: list[Region], size: tuple[int, int], many: bool) -> None:
    """Read the first region, or all."""
    image = open_pyramid(image)
    if many:
        image.read_many(regions, size)
    else:
        image.read(regions[0], size)


def seal(path: Path) -> Path:
    """Seal a store as it is."""
    files = [file for file in path.rglob("*") if file.is_file()]
    content = {file.relative_to(path).as_posix(): file.read_bytes() for file in files}
    listed = {name: Sealed(len(data), digest_of(data)) for name, data in content.items()}
    (path / SEAL).parent.mkdir(parents=True, exist_ok=True)
    (path / SEAL).write_bytes(Seal(listed).to_bytes())
    return path


def write_levels(path: Path, pixels: Pixels, count: int = 2, gap: bool = False) -> Path:
    """Write an OME-Zarr of sharded levels; with a gap, its first chunk is not stored."""
    group = zarr.open_group(path, mode="w")
    datasets = []
    for level in range(count):
        stored = pixels[:: 2**level, :: 2**level].transpose(2, 0, 1).copy()
        if gap:
            stored[:, :64, :64] = 0
        array = group.create_array(
            str(level), shape=stored.shape, dtype=stored.dtype, chunks=(3, 64, 64),
            shards=(3, 128, 128), compressors=[ZstdCodec(level=1), Crc32cCodec()],
        )  # fmt: skip
        array[...] = stored
        scale = {"type": "scale", "scale": [1, 2**level, 2**level]}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
    axes = [{"name": name} for name in "cyx"]
    image: dict[str, Any] = {"axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    return path


def write_jpeg(
    path: Path, pixels: Pixels, *, shards: bool, turned: bool = True
) -> tuple[Path, Pixels]:
    """Write a zarr v3 array of JPEG chunks; return what its chunks decode to as well."""
    height, width, bands = pixels.shape
    down, across = 64, 80
    padded = np.zeros((-(-height // 128) * 128, -(-width // 160) * 160, bands), np.uint8)
    padded[:height, :width] = pixels
    decoded = np.empty_like(padded)
    chunks: dict[tuple[int, int], bytes] = {}
    for row in range(padded.shape[0] // down):
        for column in range(padded.shape[1] // across):
            at = (
                slice(row * down, (row + 1) * down),
                slice(column * across, (column + 1) * across),
            )
            tile = np.ascontiguousarray(padded[at] if bands > 1 else padded[at][..., 0])
            data = imagecodecs.jpeg8_encode(tile, level=90)
            decoded[at] = imagecodecs.jpeg8_decode(data).reshape(down, across, bands)
            chunks[row, column] = with_checksum(bytes(data))
    path.mkdir(parents=True)
    if shards:
        for row in range(padded.shape[0] // 128):
            for column in range(padded.shape[1] // 160):
                mine = [chunks[2 * row + i, 2 * column + j] for i in (0, 1) for j in (0, 1)]
                _put(path, turned, row, column, packed(mine))
    else:
        for (row, column), data in chunks.items():
            _put(path, turned, row, column, data)
    _describe_jpeg(path, pixels.shape, shards, turned)
    return path, decoded[:height, :width]


def _describe_jpeg(path: Path, size: tuple[int, ...], shards: bool, turned: bool) -> None:
    height, width, bands = size
    order = [{"name": "transpose", "configuration": {"order": [1, 2, 0]}}]
    codecs: list[dict[str, Any]] = order if turned and bands > 1 else []
    codecs = [*codecs, {"name": "imagecodecs_jpeg", "configuration": {}}, {"name": "crc32c"}]

    def shape(y: int, x: int) -> list[int]:
        return [bands, y, x] if turned else [y, x, bands]

    if shards:
        index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        inner = {"chunk_shape": shape(64, 80), "codecs": codecs, "index_codecs": index}
        codecs = [{"name": "sharding_indexed", "configuration": inner | {"index_location": "end"}}]
    metadata = {
        "zarr_format": 3, "node_type": "array", "shape": shape(height, width), "codecs": codecs,
        "data_type": "uint8", "fill_value": 7, "attributes": {},
        "chunk_grid": _grid(shape(128, 160) if shards else shape(64, 80)),
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "dimension_names": ["c", "y", "x"] if turned else ["y", "x", "c"],
    }  # fmt: skip
    (path / "zarr.json").write_text(json.dumps(metadata))


def _put(path: Path, turned: bool, row: int, column: int, data: bytes) -> None:
    file = path / "c" / (f"0/{row}/{column}" if turned else f"{row}/{column}/0")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


# --- what is missing or damaged ----------------------------------------------------------------


def test_a_sealed_store_reads_as_one_without_a_seal(tmp_path: Path) -> None:
    path = write_levels(tmp_path / "i.zarr", truth(size=SIZE))
    before = whole(open_pyramid(path))
    np.testing.assert_array_equal(before, truth(size=SIZE))
    np.testing.assert_array_equal(whole(open_pyramid(seal(path))), before)
    level = open_pyramid(path / "1")
    np.testing.assert_array_equal(whole(level), truth(size=SIZE)[::2, ::2])


@pytest.mark.parametrize("many", [False, True])
def test_a_missing_shard_is_named(tmp_path: Path, many: bool) -> None:
    path = seal(write_levels(tmp_path / "i.zarr", truth(size=SIZE)))
    (path / "1/c/0/0/1").unlink()
    image = open_pyramid(path)
    region = Region(160, 20, 128, 100)
    np.testing.assert_array_equal(
        image.read(Region(0, 20, 128, 100), (64, 50)), truth(size=SIZE)[20:120:2, :128:2]
    )
    with pytest.raises(DataError) as caught:
        _look(image, [region, Region(0, 0, 128, 100)], (64, 50), many)
    text = str(caught.value)
    assert text.startswith(f"{path} lacks a chunk that was written in level 1 at x 128 to 150, y 0")
    assert "y 0 to 64, which is x 256 to 300, y 0 to 128 of level 0" in text
    assert text.endswith("run `tnet verify STORE --repair SOURCE` on it")
    (path / SEAL).unlink()
    assert not open_pyramid(path).read(Region(256, 0, 40, 100), (20, 50)).any()


def test_a_missing_chunk_in_a_shard_is_named(tmp_path: Path) -> None:
    path = write_levels(tmp_path / "i.zarr", truth(size=SIZE), gap=True)
    image = open_pyramid(path)
    assert not image.read(Region(0, 0, 64, 64), (64, 64)).any()
    image = open_pyramid(seal(path))
    with pytest.raises(DataError, match=r"lacks a chunk .* in level 0 at x 0 to 64, y 0 to 64"):
        image.read(Region(30, 30, 80, 80), (80, 80))
    assert image.read(Region(64, 0, 64, 64), (64, 64)).any()


def test_a_chunk_of_a_resampled_view_is_named_too(tmp_path: Path) -> None:
    path = seal(write_levels(tmp_path / "i.zarr", truth(size=SIZE), gap=True))
    with pytest.raises(DataError, match="in level 0 at x 0 to 64, y 0 to 64"):
        open_pyramid(path).read(Region(0, 0, 90, 90), (60, 60))


@pytest.mark.parametrize("kind", ["zstd", "jpeg"])
def test_no_flipped_bit_gives_wrong_pixels(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "i.zarr"
    if kind == "zstd":
        wanted = truth(size=SIZE)
        write_levels(path, wanted, count=1)
    else:
        wanted = write_jpeg(path / "0", truth(size=SIZE), shards=True)[1]
        (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    seal(path)
    files = [f for f in sorted(path.rglob("*")) if f.is_file()]
    draw = random.Random(5)
    told = 0
    for _ in range(80):
        file = draw.choice(files)
        content = file.read_bytes()
        bit = draw.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(bytes(flipped))
        try:
            with open_pyramid(path) as image:
                np.testing.assert_array_equal(whole(image), wanted)
        except DataError as error:
            told += 1
            assert str(path) in str(error)  # noqa: PT017
        file.write_bytes(content)
    assert told > 60  # bytes that no chunk uses may flip unseen


def test_metadata_that_was_changed_after_sealing_is_refused(tmp_path: Path) -> None:
    path = seal(write_levels(tmp_path / "i.zarr", truth(size=SIZE)))
    text = (path / "0/zarr.json").read_text()
    (path / "0/zarr.json").write_text(text.replace('"fill_value": 0', '"fill_value": 9'))
    with pytest.raises(DataError, match=r"0/zarr.json has been changed"):
        open_pyramid(path)


# --- our own reader of chunks ------------------------------------------------------------------

CODECS: dict[str, list[Any]] = {
    "plain": [],
    "zstd": [ZstdCodec(level=2), Crc32cCodec()],
    "blosc": [BloscCodec(cname="zstd", shuffle="bitshuffle", typesize=2), Crc32cCodec()],
    "gzip": [GzipCodec()],
}


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as a process does that was forked from one that used tensorstore."""
    monkeypatch.setattr("tnet.adapters.zarr.windows.shared_context", lambda: (None, -1))


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("endian", ["little", "big"])
def test_forked_processes_read_the_same(
    tmp_path: Path, codec: str, sharded: bool, endian: Literal["little", "big"]
) -> None:
    pixels = truth("uint16", 5, SIZE)
    stored = pixels.transpose(2, 0, 1)
    array = zarr.create_array(
        tmp_path / "i.zarr", shape=stored.shape, dtype="u2", chunks=(2, 64, 64), fill_value=3,
        shards=(2, 128, 64) if sharded else None, compressors=CODECS[codec],
        serializer=BytesCodec(endian=endian),
    )  # fmt: skip
    array[...] = stored
    array[:, 128:, :64] = 3  # not stored
    pixels[128:, :64] = 3
    image = open_pyramid(tmp_path / "i.zarr")
    np.testing.assert_array_equal(whole(image), pixels)
    regions = [Region(x, y, 70, 66) for x in (0, 10, 64, 230) for y in (0, 64, 130)]
    for region, got in zip(regions, image.read_many(regions, (70, 66)), strict=True):
        x, y = int(region.x), int(region.y)
        np.testing.assert_array_equal(got, pixels[y : y + 66, x : x + 70])


@pytest.mark.usefixtures("forked")
def test_forked_processes_are_as_strict(tmp_path: Path) -> None:
    path = seal(write_levels(tmp_path / "i.zarr", truth(size=SIZE), gap=True))
    with pytest.raises(DataError, match=r"lacks a chunk .* in level 0 at x 0 to 64, y 0 to 64"):
        open_pyramid(path).read(Region(30, 30, 80, 80), (80, 80))


@pytest.mark.usefixtures("forked")
def test_forked_processes_read_old_stores_through_zarr_python(tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "i.zarr", truth(size=SIZE), version="0.4")
    np.testing.assert_array_equal(whole(open_pyramid(path)), truth(size=SIZE))


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize(("bands", "turned"), [(3, True), (1, True), (3, False), (1, False)])
def test_jpeg_chunks(tmp_path: Path, shards: bool, bands: int, turned: bool) -> None:
    path, wanted = write_jpeg(
        tmp_path / "i.zarr", truth("uint8", bands, SIZE), shards=shards, turned=turned
    )
    image = open_pyramid(path)
    assert image.levels[0].tile == (80, 64)
    np.testing.assert_array_equal(whole(image), wanted)
    regions = [Region(x, y, 90, 70) for x in range(0, 210, 30) for y in range(0, 130, 13)]
    for region, got in zip(regions, image.read_many(regions, (90, 70)), strict=True):
        x, y = int(region.x), int(region.y)
        np.testing.assert_array_equal(got, wanted[y : y + 70, x : x + 90])
    image.close()
    np.testing.assert_array_equal(whole(image), wanted)


@pytest.mark.parametrize("shards", [False, True])
def test_jpeg_chunks_that_are_missing(tmp_path: Path, shards: bool) -> None:
    path, wanted = write_jpeg(tmp_path / "i.zarr", truth(size=SIZE), shards=shards)
    seal(path)
    (path / "c/0/0/0").unlink()
    with pytest.raises(DataError, match=r"lacks a chunk .* in level 0 at x 0 to 80, y 0 to 64 "):
        whole(open_pyramid(path))
    (path / SEAL).unlink()
    got = whole(open_pyramid(path))
    assert (got[:64, :80] == 7).all()
    np.testing.assert_array_equal(got[128:, 160:], wanted[128:, 160:])


@pytest.mark.parametrize(
    ("tile", "said"),
    [((512, 80), "80 x 512"), ((32, 40), "32, 40"), ((80, 64), "80, 64"), (None, "checksum")],
)
def test_jpeg_chunks_of_another_size(
    tmp_path: Path, tile: tuple[int, int] | None, said: str
) -> None:
    path, _ = write_jpeg(tmp_path / "i.zarr", truth(size=SIZE), shards=False)
    other = b"none at all" if tile is None else imagecodecs.jpeg8_encode(np.zeros((*tile, 3), "u1"))
    (path / "c/0/1/2").write_bytes(other if tile is None else with_checksum(bytes(other)))
    with pytest.raises(DataError, match=rf"in level 0 at x 160 to 240, y 64 to 128 \(.*{said}"):
        whole(open_pyramid(path))


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("jpeg", [False, True])
def test_a_store_that_goes_away_is_not_empty(
    tmp_path: Path, jpeg: bool, again: bool, sealed: bool
) -> None:
    def write(path: Path) -> Path:
        if jpeg:
            write_jpeg(path, truth(size=SIZE), shards=True)
        else:
            write_levels(path, truth(size=SIZE))
        return seal(path) if sealed else path

    path = write(tmp_path / "i.zarr")
    with open_pyramid(path) as image:
        image.read(Region(0, 0, 8, 8), (8, 8))
        path.rename(tmp_path / "old.zarr")
        if again:
            write(path)
        for region in (Region(0, 0, 8, 8), Region(130, 130, 60, 60)):
            size = (int(region.width), int(region.height))
            with pytest.raises(DataError, match="moved, removed or replaced while it was open"):
                image.read(region, size)
            with pytest.raises(DataError, match="moved, removed or replaced while it was open"):
                image.read_many([region, region], size)


def test_a_folder_in_the_place_of_a_chunk(tmp_path: Path) -> None:
    path, _ = write_jpeg(tmp_path / "i.zarr", truth(size=SIZE), shards=False)
    for file in path.glob("c/0/0/*"):
        file.unlink()
        file.mkdir()
    with pytest.raises(UnsupportedImage, match="0 is no file"):
        whole(open_pyramid(path))


@pytest.mark.parametrize("name", ["", "yx"])
def test_axes_of_odd_names(tmp_path: Path, name: str) -> None:
    pixels = truth("uint8", 1, SIZE)
    array = zarr.create_array(
        tmp_path / "i.zarr", shape=(2, *pixels.shape[:2]), chunks=(1, 64, 64), dtype="u1",
        dimension_names=[name, "y", "x"],
    )  # fmt: skip
    array[0] = pixels[..., 0]
    np.testing.assert_array_equal(whole(open_pyramid(tmp_path / "i.zarr")), pixels)


def test_shards_of_nothing(tmp_path: Path) -> None:
    path = write_levels(tmp_path / "i.zarr", truth(size=SIZE))
    document = json.loads((path / "0/zarr.json").read_text())
    document["chunk_grid"]["configuration"]["chunk_shape"] = [3, 0, 128]
    (path / "0/zarr.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="a shape that makes no sense"):
        open_pyramid(path)


@pytest.mark.parametrize("level", ["", "0"])
def test_a_sealed_store_in_a_collection_stays_strict(tmp_path: Path, level: str) -> None:
    zarr.open_group(tmp_path / "all.zarr", mode="w")
    path = seal(write_levels(tmp_path / "all.zarr/i.zarr", truth(size=SIZE)))
    (path / "0/c/0/0/0").unlink()
    with pytest.raises(DataError, match="lacks a chunk"):
        whole(open_pyramid(path / level))


def test_a_level_by_the_name_of_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = seal(write_levels(tmp_path / "i.zarr", truth(size=SIZE)))
    (path / "0/c/0/0/0").unlink()
    monkeypatch.chdir(path / "0")
    with pytest.raises(DataError, match="lacks a chunk"):
        whole(open_pyramid("."))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only there files can be counted")
def test_few_files_of_many_stores_are_open(tmp_path: Path) -> None:
    path, _ = write_jpeg(tmp_path / "i.zarr", truth(size=SIZE), shards=False)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    images = [open_pyramid(path) for _ in range(6)]
    for image in images:
        whole(image)
    assert before < len(os.listdir("/proc/self/fd")) <= before + 64  # noqa: PTH208
    for image in images:
        image.close()
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


FORK = """
import multiprocessing, sys
from tnet.adapters import open_pyramid
from tnet.errors import DataError
from tnet.geometry import Region

def look(path, what):
    try:
        open_pyramid(path).read(Region(0, 0, 128, 128), (128, 128))
    except DataError as error:
        what.value = int("lacks a chunk" in str(error))

fork = multiprocessing.get_context("fork")
here, there = multiprocessing.Value("i"), fork.Value("i")
look(sys.argv[1], here)
child = fork.Process(target=look, args=(sys.argv[1], there))
child.start()
child.join(60)
print(child.exitcode, here.value, there.value)
child.kill()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others do not fork")
def test_a_real_fork_is_as_strict(tmp_path: Path) -> None:
    path = seal(write_levels(tmp_path / "i.zarr", truth(size=SIZE), gap=True))
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(path)],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "1", "1"], done.stderr


# --- batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("side", [40, 64, 128, 1100])
def test_windows_are_the_same_alone_and_beside_others(
    tmp_path: Path, side: int, again: bool
) -> None:
    rng = np.random.default_rng(side)
    pixels = rng.integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    image = open_pyramid(seal(write_levels(tmp_path / "s.zarr", pixels, 1)))
    corners = [(0, 0), (64, 0), (50, 30), (1200 - side, 1200 - side)]
    regions = [Region(x, y, side, side) for x, y in corners]
    if again:  # nobody writes into what is remembered
        image.read(regions[0], (side, side))[:] = 0
        image.read_many(regions, (side, side))[:] = 0
    for region, got in zip(regions, image.read_many(regions, (side, side)), strict=True):
        x, y = int(region.x), int(region.y)
        np.testing.assert_array_equal(got, pixels[y : y + side, x : x + side])
        alone = image.read(region, (side, side))
        np.testing.assert_array_equal(alone, got)
        assert alone.flags.c_contiguous
        assert alone.flags.owndata


def test_a_batch_is_its_windows(tmp_path: Path) -> None:
    """Stored pixels of several levels, resampled ones and border, more than are begun at once."""
    image = open_pyramid(write_levels(tmp_path / "i.zarr", truth(size=SIZE), count=3))
    draw = np.random.default_rng(3)
    regions = []
    for _ in range(200):
        step = float(draw.choice([1, 2, 4, 1.5]))
        x, y = (int(v) // int(step) * int(step) for v in draw.integers(-20, 250, 2))
        regions.append(Region(x, y, 48 * step, 32 * step))
    many = image.read_many(regions, (48, 32))
    assert many.flags.c_contiguous
    for region, pixels in zip(regions, many, strict=True):
        alone = image.read(region, (48, 32))
        assert alone.flags.c_contiguous
        np.testing.assert_array_equal(alone, pixels)
        alone[...] = 0  # it is the caller's, and in nobody's cache
    np.testing.assert_array_equal(image.read_many(regions, (48, 32)), many)


# --- what is declared --------------------------------------------------------------------------


def _edited(path: Path, **change: Any) -> Path:
    metadata = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps(metadata | change))
    return path


def _long(folder: Path) -> Path:
    return _edited(write_zarr(folder / "i.zarr", truth()), attributes={"a": "b" * 2**23})


def _deep(folder: Path) -> Path:
    path = write_zarr(folder / "i.zarr", truth())
    (path / "zarr.json").write_text("[" * 100_000 + "]" * 100_000)
    return path


def _levels(folder: Path) -> Path:
    path = write_levels(folder / "i.zarr", truth(size=SIZE))
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["ome"]["multiscales"][0]["datasets"] *= 33
    (path / "zarr.json").write_text(json.dumps(metadata))
    return path


def _grid(shape: list[int]) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": shape}}


def _chunk(folder: Path) -> Path:
    path = write_zarr(folder / "i.zarr", truth())
    return _edited(path, chunk_grid=_grid([60_000, 60_000, 3]))


def _shard(folder: Path) -> Path:
    path = write_zarr(folder / "i.zarr", truth(), shards=True)
    return _edited(path, chunk_grid=_grid([64 * 2**20, 64 * 2**20, 3]))


def _pixels(folder: Path) -> Path:
    return _edited(write_zarr(folder / "i.zarr", truth()), shape=[10**7, 10**7, 3])


def _negative(folder: Path) -> Path:
    return _edited(write_zarr(folder / "i.zarr", truth()), shape=[-5, 10, 3])


def _axes(folder: Path) -> Path:
    return _edited(write_zarr(folder / "i.zarr", truth()), shape=[5, 10])


def _nonsense(folder: Path) -> Path:
    return _edited(write_zarr(folder / "i.zarr", truth()), chunk_grid=5)


def _separator(folder: Path) -> Path:
    path = write_zarr(folder / "i.zarr", truth(), version=2)
    metadata = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps(metadata | {"dimension_separator": "/../"}))
    return path


ABSURD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "long": (_long, "larger than the 8 MiB"),
    "deep": (_deep, "nested deeper than 64"),
    "levels": (_levels, "66 levels"),
    "chunk": (_chunk, "--max-memory"),
    "shard": (_shard, "--max-memory"),
    "pixels": (_pixels, "--max-pixels"),
    "negative": (_negative, "makes no sense"),
    "axes": (_axes, "unlike number"),
    "nonsense": (_nonsense, "cannot be opened as zarr"),
    "separator": (_separator, "names its chunks"),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_metadata_is_refused(tmp_path: Path, name: str) -> None:
    make, reason = ABSURD[name]
    with pytest.raises(DataError, match=reason) as caught:
        open_zarr(make(tmp_path))
    assert str(tmp_path / "i.zarr") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["v2", "v3", "shards", "hidden"])
def test_a_chunk_that_would_grow_is_refused_before_it_does(tmp_path: Path, kind: str) -> None:
    more: dict[str, Any] = {"compressors": [BloscCodec()]}
    if kind == "v2":
        blosc = pytest.importorskip("numcodecs").Blosc()
        more = {"zarr_format": 2, "compressors": [blosc]}
    if kind in ("shards", "hidden"):
        more["shards"] = (128, 128)
    array = zarr.create_array(
        tmp_path / "i.zarr", shape=(128, 128), chunks=(64, 64), dtype="u1",
        **more,
    )  # fmt: skip
    array[...] = truth("uint8", 1, (128, 128))[..., 0]
    np.testing.assert_array_equal(whole(open_pyramid(tmp_path / "i.zarr"))[..., 0], array[...])
    bomb = bytes(imagecodecs.blosc_encode(bytes(2**24), compressor="zstd"))
    if kind == "shards":
        bomb = packed([None, bomb, None, None])
    if kind == "hidden":  # behind a chunk that has no header
        end, absent = len(bomb) + 4 * 16 + 4, 2**64 - 1
        bomb += with_checksum(struct.pack("<8Q", end - 2, 2, 0, len(bomb), *[absent] * 4))
    (tmp_path / "i.zarr" / ("1.1" if kind == "v2" else "c/0/0")).write_bytes(bomb)
    with pytest.raises(UnsupportedImage, match="would take 16777216 bytes instead of 4096"):
        whole(open_pyramid(tmp_path / "i.zarr"))


ODD: tuple[Any, ...] = (
    None, True, -1, 0, 10**30, 1e308, "", "x", "NaN", "../..", [], {}, [[]], [None], {"a": 1},
    [1, 2, 3, 4, 5],
)  # fmt: skip


def _places(values: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where every value of a JSON document is."""
    inner = values.items() if isinstance(values, dict) else enumerate(values)
    found = []
    for key, value in inner:
        found.append((*place, key))
        if isinstance(value, dict | list):
            found += _places(value, (*place, key))
    return found


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_whatever_metadata_says_ends_in_words(tmp_path: Path, version: str) -> None:
    path = write_ome_zarr(tmp_path / "i.zarr", truth(size=(70, 70)), version=version, levels=2)
    names = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
    texts = {file: file.read_text() for file in path.rglob("*") if file.name in names}
    texts = {file: text for file, text in texts.items() if json.loads(text)}
    draw = random.Random(11)
    refused = 0
    for _ in range(250):
        file, text = draw.choice(sorted(texts.items()))
        document = json.loads(text)
        *way, last = draw.choice(_places(document))
        inner = document
        for key in way:
            inner = inner[key]
        inner[last] = draw.choice(ODD)
        file.write_text(json.dumps(document))
        try:
            whole(open_zarr(path, Limits(pixels=10**6, memory=10**7)))
        except DataError as error:
            refused += 1
            assert str(path) in str(error)  # noqa: PT017
        file.write_text(text)
    assert 100 < refused < 250


def test_the_limits_are_the_callers(tmp_path: Path) -> None:
    path = write_zarr(tmp_path / "i.zarr", truth())
    with pytest.raises(UnsupportedImage, match="--max-pixels"):
        open_zarr(path, Limits(pixels=1000))
    with pytest.raises(UnsupportedImage, match="--max-memory"):
        open_zarr(path, Limits(memory=1000))


def _to_a_link(store: Path, place: str) -> None:
    """Put a link in the place of a file or folder, which now lies outside of the store."""
    outside = store.parent / "outside"
    (store / place).rename(outside)
    (store / place).symlink_to(outside)


@pytest.mark.parametrize("place", ["0/c/0/0/1", "0/c/0", "0/c", "0", "0/zarr.json", "zarr.json"])
@pytest.mark.parametrize("kind", ["zstd", "jpeg"])
def test_links_out_of_a_store_are_refused(tmp_path: Path, place: str, kind: str) -> None:
    path = tmp_path / "i.zarr"
    if kind == "zstd":
        write_levels(path, truth(size=SIZE), count=1)
    else:
        write_jpeg(path / "0", truth(size=SIZE), shards=True)
        (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    _to_a_link(path, place)
    regions = [Region(150, 0, 50, 50), Region(0, 0, 50, 50)]
    for many in (False, True):
        with pytest.raises(UnsupportedImage, match="leads outside of itself"):
            _look(path, regions, (50, 50), many)


def test_links_to_a_store_and_inside_it_are_followed(tmp_path: Path) -> None:
    path = write_levels(tmp_path / "i.zarr", truth(size=SIZE), count=1)
    (path / "0").rename(path / "pixels")
    (path / "0").symlink_to("pixels")
    (tmp_path / "link.zarr").symlink_to(path)
    np.testing.assert_array_equal(whole(open_pyramid(tmp_path / "link.zarr")), truth(size=SIZE))
