"""What is hurt in a store is found, named, and repaired to the byte."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import zarr
from command_line import picture
from hypothesis import given
from hypothesis import strategies as st
from make_images import truth, write_geotiff, write_ome_zarr, write_tiff_pyramid, write_zarr
from numpy.typing import NDArray
from PIL import Image

from tnet.adapters import open_pyramid
from tnet.adapters.links.making import link
from tnet.adapters.storage.conversion import convert
from tnet.adapters.storage.findings import Report
from tnet.adapters.storage.locking import BusyError
from tnet.adapters.storage.repair import repair
from tnet.adapters.storage.seal import SEAL, Seal, Sealed, digest_of, read_seal
from tnet.adapters.storage.shards import read_index
from tnet.adapters.storage.staging import staged
from tnet.adapters.storage.verify import size_of, verify
from tnet.adapters.storage.wanted import Wanted
from tnet.errors import DataError, UsageError
from tnet.geometry import Region

Copy = Callable[[str], Path]

STORES = ("lossless", "scene", "jpeg", "moved", "kept")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, and of a whole store of each under the name NAME.zarr."""
    folder = tmp_path_factory.mktemp("stores")
    Image.fromarray(picture(700, 500)).save(folder / "lossless.png")
    Image.fromarray(picture(700, 500, seed=1)).save(folder / "jpeg.png")
    write_geotiff(folder / "scene.tif", _smooth(4400, 300), nodata="0")
    pixels = picture(700, 500, seed=2)
    write_tiff_pyramid(folder / "moved.tif", pixels, ome=False, compression="jpeg")
    write_tiff_pyramid(folder / "kept.tif", pixels, ome=False, compression="jpeg")
    for name, wanted in {
        "lossless.png": Wanted(),
        "jpeg.png": Wanted("jpeg:85", mpp=0.25),
        "scene.tif": Wanted(),
        "moved.tif": Wanted("source"),
        "kept.tif": Wanted(),
    }.items():
        convert(folder / name, folder / f"{Path(name).stem}.zarr", wanted)
    return folder


def _smooth(width: int, height: int) -> NDArray[np.uint16]:
    """Return two bands that compress well, none of them 0."""
    y, x = np.mgrid[:height, :width].astype(np.uint16)
    return np.stack([x // 8 + y + 1, 40000 - x - y], -1)


def source(place: Path, name: str) -> Path:
    return next(
        place / f"{name}{end}" for end in (".png", ".tif") if (place / f"{name}{end}").exists()
    )


@pytest.fixture
def copy(place: Path, tmp_path: Path) -> Copy:
    def made(name: str) -> Path:
        return Path(shutil.copytree(place / f"{name}.zarr", tmp_path / f"{name}.zarr"))

    return made


def contents(store: Path) -> dict[str, bytes | str]:
    """Return all that lies in a store; of a link, where it leads."""
    return {
        str(path.relative_to(store)): f"-> {path.readlink()}"
        if path.is_symlink()
        else path.read_bytes()
        for path in store.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in [folder, *folder.rglob("*")]:
        about = path.lstat()
        found[str(path)] = (about.st_ino, about.st_mtime_ns, about.st_size)
    return found


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def hurt_files(report: Report) -> set[str]:
    return {fault.file for fault in report.faults}


@pytest.mark.parametrize("name", STORES)
def test_a_whole_store_is_whole_and_left_as_it_is(place: Path, name: str) -> None:
    store = place / f"{name}.zarr"
    before = stamps(place)
    told: list[int] = []
    report = verify(store, told=told.append)
    assert (report.outcome, report.faults, report.notes) == ("whole", (), ())
    assert report.sealed
    assert report.files == len(contents(store))
    assert report.size == size_of(store) == sum(map(len, contents(store).values()))
    assert sum(told) == report.size - (store / SEAL).stat().st_size
    assert stamps(place) == before


def whole(store: Path) -> list[NDArray[Any]]:
    """Return the image in the sizes of all of its levels."""
    with open_pyramid(store) as pyramid:
        everything = Region(0, 0, pyramid.width, pyramid.height)
        return [pyramid.read(everything, (n.width, n.height)) for n in pyramid.levels]


def check_flips(place: Path, store: Path, count: int, seed: int) -> None:
    """Flip bits one after the other: each is named, and none changes a pixel in silence."""
    chance = random.Random(seed)
    files = sorted(path for path in store.rglob("*") if path.is_file())
    right = whole(place / store.name)
    for _ in range(count):
        path = chance.choice(files)
        before = path.read_bytes()
        bit = chance.randrange(8 * len(before))
        flip(path, bit)
        said = f"bit {bit} of {path.relative_to(store)}"
        assert hurt_files(verify(store, threads=1)) == {path.relative_to(store).as_posix()}, said
        try:
            read = whole(store)
        except DataError:
            read = right
        assert all(map(np.array_equal, read, right)), said
        path.write_bytes(before)
    assert verify(store).outcome == "whole"


@pytest.mark.parametrize("name", STORES)
def test_flipped_bits_are_named(place: Path, copy: Copy, name: str) -> None:
    check_flips(place, copy(name), 75, seed=len(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", STORES)
def test_a_thousand_flipped_bits_are_named(place: Path, copy: Copy, name: str) -> None:
    check_flips(place, copy(name), 250, seed=-len(name))


def test_a_hurt_chunk_is_named_by_its_pixels(copy: Copy) -> None:
    store = copy("scene")
    shard = store / "0/c/0/0/0"  # of 2 x 16 chunks
    offset, length = map(int, read_index(shard, 32)[17])
    flip(shard, 8 * (offset + length // 2))
    (fault,) = verify(store).faults
    assert (fault.file, fault.level, fault.region) == ("0/c/0/0/0", 0, (256, 256, 256, 44))
    assert str(fault).endswith(
        "damaged and cannot be decoded (its checksum is wrong): level 0, x 256 to 511, y 256 to 299"
    )
    offset, length = map(int, read_index(store / "2/c/0/0/0", 5)[4])
    flip(store / "2/c/0/0/0", 8 * offset)
    _, fault = verify(store).faults
    assert (fault.file, fault.level, fault.region) == ("2/c/0/0/0", 2, (4096, 0, 304, 300))
    assert str(fault).endswith(
        "level 2, x 1024 to 1099, y 0 to 74 (x 4096 to 4399, y 0 to 299 of level 0)"
    )


def test_several_hurt_chunks_are_named_each(copy: Copy) -> None:
    store = copy("scene")
    for number in (0, 5, 31):
        offset, _ = map(int, read_index(store / "0/c/0/0/0", 32)[number])
        flip(store / "0/c/0/0/0", 8 * offset)
    places = [fault.region for fault in verify(store).faults]
    assert places == [(0, 0, 256, 256), (1280, 0, 256, 256), (3840, 256, 256, 44)]


def _truncate(store: Path) -> None:
    os.truncate(store / "0/c/0/0/1", 1000)


def _append(store: Path) -> None:
    with (store / "1/c/0/0/0").open("ab") as file:
        file.write(b"more")


def _swap(store: Path) -> None:
    shards = [store / "0/c/0/0/0", store / "0/c/0/0/1"]
    contents = [shard.read_bytes() for shard in shards]
    for shard, content in zip(shards, reversed(contents), strict=True):
        shard.write_bytes(content)


def _link(store: Path) -> None:
    shard = store / "0/c/0/0/0"
    shutil.copy(shard, store.parent / "elsewhere")
    shard.unlink()
    shard.symlink_to(store.parent / "elsewhere")


def _link_folder(store: Path) -> None:
    (store / "0/c").rename(store.parent / "elsewhere")
    (store / "0/c").symlink_to(store.parent / "elsewhere")


def _extra(store: Path) -> None:
    shutil.copy(store / "0/c/0/0/0", store / "0/c/0/0/2")
    (store / "0/c/0/1").mkdir()
    (store / "0/c/0/1/0").write_text("no shard")
    (store / "0/link").symlink_to("c")


def _folder_for_file(store: Path) -> None:
    (store / "0/c/0/0/0").unlink()
    (store / "0/c/0/0/0").mkdir()


def _file_for_folder(store: Path) -> None:
    shutil.rmtree(store / "3")
    (store / "3").write_text("no folder")


def _unseal_and_delete(store: Path) -> None:
    (store / SEAL).unlink()
    (store / "0/c/0/0/1").unlink()


def _folder_for_seal(store: Path) -> None:
    (store / SEAL).unlink()
    (store / SEAL).mkdir()


def _file_for_seals_folder(store: Path) -> None:
    shutil.rmtree(store / "seal")
    (store / "seal").write_text("no folder")


ROTTEN = {"0/c/0/0/0", "1/c/0/0/0", "5/c/0/0/0", "2/zarr.json", "zarr.json", "spatial_ref/c"}


def _rot(store: Path) -> None:
    """Hurt a bit of several files of all kinds."""
    for name in (
        "0/c/0/0/0",
        "1/c/0/0/0",
        "5/c/0/0/0",
        "2/zarr.json",
        "zarr.json",
        "spatial_ref/c",
    ):
        flip(store / name, 100 if name != "spatial_ref/c" else 20)


DAMAGE: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "truncated": (_truncate, {"0/c/0/0/1"}),
    "empty": (lambda store: os.truncate(store / "2/c/0/0/0", 0), {"2/c/0/0/0"}),
    "deleted": (lambda store: (store / "1/c/0/0/0").unlink(), {"1/c/0/0/0"}),
    "longer": (_append, {"1/c/0/0/0"}),
    "swapped": (_swap, {"0/c/0/0/0", "0/c/0/0/1"}),
    "link": (_link, {"0/c/0/0/0"}),
    "linked folder": (_link_folder, {"0/c"}),
    "extra": (_extra, {"0/c/0/0/2", "0/c/0/1", "0/link"}),
    "folder for file": (_folder_for_file, {"0/c/0/0/0"}),
    "file for folder": (_file_for_folder, {"3/zarr.json", "3/c/0/0/0"}),
    "no metadata": (lambda store: (store / "0/zarr.json").unlink(), {"0/zarr.json"}),
    "no metadata at all": (lambda store: (store / "zarr.json").unlink(), {"zarr.json"}),
    "no level": (
        lambda store: shutil.rmtree(store / "0"),
        {"0/zarr.json", "0/c/0/0/0", "0/c/0/0/1"},
    ),
    "reference": (lambda store: (store / "spatial_ref/c").unlink(), {"spatial_ref/c"}),
    "rot": (_rot, ROTTEN),
    "seal cut": (lambda store: os.truncate(store / SEAL, 300), {SEAL}),
    "seal flipped": (lambda store: flip(store / SEAL, 4000), {SEAL}),
    "seal deleted": (lambda store: (store / SEAL).unlink(), {SEAL}),
    "seal and its folder": (lambda store: shutil.rmtree(store / "seal"), {SEAL}),
    "folder for seal": (_folder_for_seal, {SEAL}),
    "file for seal's folder": (_file_for_seals_folder, {SEAL}),
    "seal and a shard": (
        _unseal_and_delete,
        {SEAL, "0/c/0/0/1"},
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_repaired(place: Path, copy: Copy, damage: str) -> None:
    store = copy("scene")
    right = contents(store)
    hurt, files = DAMAGE[damage]
    hurt(store)
    before = contents(store)
    report = verify(store)
    assert report.outcome == "hurt"
    assert hurt_files(report) == files
    assert contents(store) == before
    assert repair(report, place / "scene.tif") == ()
    assert verify(store).faults == ()
    assert contents(store) == right
    assert [path.name for path in store.parent.iterdir()] in (
        [store.name], ["elsewhere", store.name], [store.name, "elsewhere"],
    )  # fmt: skip


@pytest.mark.parametrize("seal", [False, True])
@pytest.mark.parametrize("name", STORES)
def test_every_kind_of_store_is_repaired(place: Path, copy: Copy, name: str, seal: bool) -> None:
    store = copy(name)
    right = contents(store)
    flip(store / "0/c/0/0/0", 1000)
    (store / "1/c/0/0/0").unlink()
    if seal:
        flip(store / SEAL, 600)
    report = verify(store)
    assert {"0/c/0/0/0", "1/c/0/0/0"} <= hurt_files(report)
    assert repair(report, source(place, name)) == ()
    assert contents(store) == right


def test_shards_in_each_other_s_place(tmp_path: Path) -> None:
    Image.fromarray(picture(8192, 300)).save(tmp_path / "a.png")
    convert(tmp_path / "a.png", tmp_path / "a.zarr")
    _swap(tmp_path / "a.zarr")
    assert [str(fault) for fault in verify(tmp_path / "a.zarr").faults] == [
        "0/c/0/0/0 holds what belongs into 0/c/0/0/1: level 0, x 0 to 4095, y 0 to 299",
        "0/c/0/0/1 holds what belongs into 0/c/0/0/0: level 0, x 4096 to 8191, y 0 to 299",
    ]


def test_a_shard_of_another_store(copy: Copy) -> None:
    store = copy("lossless")
    pixels = picture(700, 500, seed=9)
    Image.fromarray(pixels).save(store.parent / "other.png")
    convert(store.parent / "other.png", store.parent / "other.zarr")
    shutil.copy(store.parent / "other.zarr/0/c/0/0/0", store / "0/c/0/0/0")
    (fault,) = verify(store).faults
    assert "was written anew: it is sound, but not what was sealed" in str(fault)
    assert fault.region == (0, 0, 700, 500)


def resealed(store: Path, change: Callable[[dict[str, Sealed]], None]) -> Seal:
    """Give a store the seal of other files."""
    seal = read_seal(store)
    assert seal is not None
    files = dict(seal.files)
    change(files)
    (store / SEAL).write_bytes(Seal(files, seal.source, seal.settings).to_bytes())
    return seal


def test_bytes_that_belong_to_no_chunk(copy: Copy) -> None:
    store = copy("lossless")
    shard = store / "2/c/0/0/0"  # one chunk
    content = shard.read_bytes()
    # A gap between the chunk and the index, as other writers leave them.
    shard.write_bytes(content[:-20] + b"gap" + content[-20:])
    resealed(
        store,
        lambda files: files.update(
            {"2/c/0/0/0": Sealed(len(content) + 3, digest_of(shard.read_bytes()))}
        ),
    )
    assert verify(store).outcome == "whole"
    flip(shard, 8 * (len(content) - 19))
    (fault,) = verify(store).faults
    assert fault.what == "has been changed or damaged, but only in bytes that belong to no chunk"
    assert fault.region is None


def test_what_others_add_is_noted(copy: Copy) -> None:
    store = copy("lossless")
    write_zarr(store / "labels", truth())
    (store / "README").write_text("mine")
    report = verify(store)
    assert report.outcome == "whole"
    assert report.notes == (
        "README is not of the seal, so nobody vouches for it",
        "labels is not of the seal, so nobody vouches for it",
    )


def test_a_repair_touches_only_what_is_hurt(place: Path, copy: Copy) -> None:
    store = copy("scene")
    before = stamps(store)
    flip(store / "0/c/0/0/1", 77)
    repair(verify(store), place / "scene.tif")
    after = stamps(store)
    changed = {Path(name).name for name in after if after[name] != before[name]}
    assert changed == {"0", "1"}  # the shard "1", and its folder
    assert after.keys() == before.keys()


@pytest.mark.parametrize("seal", [False, True])
def test_a_wrong_source_is_refused(place: Path, copy: Copy, seal: bool) -> None:
    store = copy("lossless")
    flip(store / "0/c/0/0/0", 1000)
    if seal:
        (store / SEAL).unlink()
    before = stamps(store.parent)
    with pytest.raises((UsageError, DataError), match="made from"):
        repair(verify(store), place / "jpeg.png")
    assert {k: v for k, v in stamps(store.parent).items() if k != str(store.parent)} == {
        k: v for k, v in before.items() if k != str(store.parent)
    }


def test_sources_that_are_gone_or_renamed(place: Path, copy: Copy) -> None:
    store = copy("lossless")
    right = contents(store)
    flip(store / "0/c/0/0/0", 1000)
    report = verify(store)
    with pytest.raises(UsageError, match="does not exist"):
        repair(report, place / "gone.png")
    renamed = store.parent / "renamed.png"
    shutil.copy(place / "lossless.png", renamed)
    with pytest.raises(UsageError, match=r"when that was called lossless\.png"):
        repair(report, renamed)
    (store.parent / "lossless.png").symlink_to(renamed)
    assert repair(report, store.parent / "lossless.png") == ()
    assert contents(store) == right


def test_a_repair_that_breaks_off_leaves_nothing_worse(
    place: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copy("scene")
    right = contents(store)
    hurt = ["0/c/0/0/0", "0/c/0/0/1", "3/c/0/0/0"]
    for name in hurt:
        flip(store / name, 99)
    bad = contents(store)
    report = verify(store)
    calls = []

    def breaking(path: Path) -> None:
        calls.append(path)
        if len(calls) == 3:  # the second file is to be renamed
            raise OSError("the disk is gone")

    monkeypatch.setattr("tnet.adapters.storage.repair.to_disk", breaking)
    with pytest.raises(OSError, match="the disk is gone"):
        repair(report, place / "scene.tif")
    monkeypatch.undo()
    now = contents(store)
    assert [now[name] == right[name] for name in hurt] == [True, False, False]
    assert [now[name] == bad[name] for name in hurt] == [False, True, True]
    assert hurt_files(verify(store)) == set(hurt[1:])
    assert repair(verify(store), place / "scene.tif") == ()
    assert contents(store) == right


def test_a_store_that_somebody_writes_is_not_repaired(place: Path, copy: Copy) -> None:
    store = copy("lossless")
    flip(store / "0/c/0/0/0", 99)
    before = contents(store)
    report = verify(store)
    with staged(store, {}, None) as stage:
        stage.write("kept", [b"by its owner"])
        with pytest.raises(BusyError, match="is being written by process"):
            repair(report, place / "lossless.png")
    assert contents(store) == before
    assert (stage.folder / "kept").read_bytes() == b"by its owner"


def test_what_cannot_be_made_as_it_was_is_left(place: Path, copy: Copy) -> None:
    store = copy("lossless")
    resealed(store, lambda files: files.update({"1/c/0/0/0": Sealed(9, "0" * 64)}))
    flip(store / "0/c/0/0/0", 1000)
    before = contents(store)
    (note,) = repair(verify(store), place / "lossless.png")
    assert note.startswith("1 files made anew from ")
    after = contents(store)
    assert {name for name in after if after[name] != before[name]} == {"0/c/0/0/0"}
    assert hurt_files(verify(store)) == {"1/c/0/0/0"}


def test_a_store_of_another_version_is_not_repaired(place: Path, copy: Copy) -> None:
    store = copy("lossless")
    seal = read_seal(store)
    assert seal is not None
    settings = {**seal.settings, "version": 0}
    (store / SEAL).write_bytes(Seal(seal.files, seal.source, settings).to_bytes())
    (store / "0/c/0/0/0").unlink()
    with pytest.raises(DataError, match="another version"):
        repair(verify(store), place / "lossless.png")


def test_a_seal_cannot_name_files_elsewhere(place: Path, copy: Copy) -> None:
    store = copy("lossless")
    resealed(store, lambda files: files.update({"../lossless.png": Sealed(1, "0")}))
    assert str(verify(store).faults[0]) == f"{SEAL} names files outside of the store"
    with pytest.raises(DataError, match="names files outside of it"):
        repair(verify(store), place / "lossless.png")
    assert not (store.parent / "lossless.png").exists()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_foreign_store_is_whole_with_a_note(tmp_path: Path, version: str) -> None:
    store = write_ome_zarr(tmp_path / "a.zarr", truth(), version=version)
    before = stamps(store)
    report = verify(store)
    assert (report.outcome, report.sealed, report.faults) == ("whole", False, ())
    assert report.notes == (
        "it has no seal, so only what can be decoded is known to be there",
        "its chunks have no checksums: damage that still decodes goes unseen",
    )
    assert stamps(store) == before


@pytest.mark.parametrize("version", [2, 3])
def test_a_store_with_a_single_value(tmp_path: Path, version: Literal[2, 3]) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    group.create_array("0", shape=(10, 20), chunks=(10, 10), dtype="u2")[...] = 7
    group.create_array("spatial_ref", shape=(), dtype="i8")[...] = 7
    assert verify(tmp_path / "a.zarr").faults == ()
    (tmp_path / "a.zarr/spatial_ref" / ("c" if version == 3 else "0")).unlink()
    (fault,) = verify(tmp_path / "a.zarr").faults
    assert str(fault) == "no seal: 1 of 3 chunks are not stored and read as the fill value"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_foreign_store_that_is_hurt(tmp_path: Path, version: str) -> None:
    store = write_ome_zarr(tmp_path / "a.zarr", truth(), version=version)
    start, between = ("c/", "/") if version == "0.5" else ("", ".")
    (store / f"s0/{start}0{between}1{between}2").write_bytes(b"no chunk at all")
    (store / f"s1/{start}0{between}0{between}1").unlink()
    report = verify(store)
    chunk, sparse = report.faults
    assert (chunk.level, chunk.region) == (0, (128, 64, 64, 64))
    assert "cannot be decoded" in chunk.what
    assert str(sparse) == ("no seal: 1 of 28 chunks are not stored and read as the fill value")


def test_a_foreign_sharded_store(tmp_path: Path) -> None:
    store = write_zarr(tmp_path / "a.zarr", truth(), shards=True, planar=True)
    assert verify(store).outcome == "whole"
    flip(store / "c/0/1/1", 8 * ((store / "c/0/1/1").stat().st_size - 30))
    (fault,) = verify(store).faults
    assert (fault.file, fault.region) == ("c/0/1/1", (128, 128, 128, 75))
    assert "its index is damaged" in fault.what


def test_what_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "file.zarr").write_text("file")
    for name, said in {
        "empty.zarr": "holds no zarr metadata",
        "file.zarr": "is no folder",
        "none.zarr": "does not exist",
    }.items():
        report = verify(tmp_path / name)
        assert report.outcome == "unreadable"
        assert str(report.faults[0]).startswith(f"{tmp_path / name} {said}")


def test_a_link(place: Path, tmp_path: Path) -> None:
    image = Path(shutil.copy(place / "moved.tif", tmp_path))
    link(image, tmp_path / "a.zarr")
    assert verify(tmp_path / "a.zarr").outcome == "whole"
    with pytest.raises(DataError, match="link the image again"):
        repair(verify(tmp_path / "a.zarr"), image)
    with image.open("ab") as file:
        file.write(b"more")
    report = verify(tmp_path / "a.zarr")
    assert report.outcome == "hurt"
    assert str(image) in str(report.faults[0])


Values = dict[str, Any]


def _first(values: Values) -> Values:
    return values["attributes"]["ome"]["multiscales"][0]


def _steps(values: Values, level: int) -> list[Values]:
    return _first(values)["datasets"][level]["coordinateTransformations"]


CHANGES: dict[str, tuple[Callable[[Values], object], str]] = {
    "no images": (lambda v: v["attributes"]["ome"].update(multiscales=[]), "no list of images"),
    "no levels": (lambda v: _first(v).update(datasets=[]), "without levels"),
    "no datasets": (lambda v: _first(v).pop("datasets"), "make no sense"),
    "a level of nothing": (lambda v: _first(v)["datasets"][1].update(path="s7"), "'s7'"),
    "a level outside": (lambda v: _first(v)["datasets"][1].update(path="../s1"), "outside"),
    "no axes": (lambda v: _first(v).pop("axes"), "no list of axes"),
    "axes turned": (lambda v: _first(v)["axes"].reverse(), "in the order ['x', 'y', 'c']"),
    "axes twice": (lambda v: _first(v)["axes"][0].update(name="y"), "has the axes"),
    "too few axes": (lambda v: _first(v)["axes"].pop(0), "has 3"),
    "no scale": (lambda v: _steps(v, 1).clear(), "without one scale"),
    "a short scale": (lambda v: _steps(v, 1)[0]["scale"].pop(), "not one number an axis"),
    "a negative scale": (lambda v: _steps(v, 1)[0].update(scale=[1, -1, 1]), "not above 0"),
    "an infinite scale": (lambda v: _steps(v, 1)[0].update(scale=[1, 1, 1e999]), "not one number"),
    "a scale of text": (lambda v: _steps(v, 1)[0].update(scale="abc"), "make no sense"),
    "a wrong scale": (lambda v: _steps(v, 1)[0].update(scale=[1, 2, 2]), "its scale contradicts"),
    "a level twice": (lambda v: _first(v)["datasets"][1].update(path="s0"), "not smaller"),
    "levels turned": (lambda v: _first(v)["datasets"].reverse(), "not smaller"),
    "zarr of 0.4": (lambda v: v["attributes"]["ome"].update(version="0.4"), "another version of"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_metadata_that_makes_no_sense(tmp_path: Path, change: str) -> None:
    store = write_ome_zarr(tmp_path / "a.zarr", truth())
    values = json.loads((store / "zarr.json").read_text())
    alter, said = CHANGES[change]
    alter(values)
    (store / "zarr.json").write_text(json.dumps(values))
    report = verify(store)
    assert report.outcome == "hurt"
    assert {fault.file for fault in report.faults} == {"zarr.json"}
    assert said in " ".join(map(str, report.faults))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("zarr.json", "no JSON"),
        ("s1/zarr.json", "[]"),
        ("s1/zarr.json", '{"node_type": "array", "shape": [1]}'),
        ("s0/zarr.json", "{" * 100),
    ],
)
def test_metadata_that_cannot_be_read(tmp_path: Path, name: str, content: str) -> None:
    store = write_ome_zarr(tmp_path / "a.zarr", truth())
    (store / name).write_text(content)
    assert name in hurt_files(verify(store))


@pytest.fixture(scope="module", params=["0.4", "0.5"])
def foreign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    return write_ome_zarr(folder / "a.zarr", truth(size=(130, 70)), version=request.param)


@given(st.data())
def test_no_damage_breaks_the_check_itself(foreign: Path, data: st.DataObject) -> None:
    names = sorted(str(path) for path in foreign.rglob("*") if path.is_file())
    path = Path(data.draw(st.sampled_from(names)))
    right = path.read_bytes()
    place = data.draw(st.integers(0, len(right) - 1))
    some = data.draw(
        st.binary(max_size=4) | st.sampled_from([b"0", b"-1", b"null", b'"', b"1e999"])
    )
    path.write_bytes(right[:place] + some + right[place + len(some) :])
    try:
        report = verify(foreign, threads=1)
        assert report.outcome in ("whole", "hurt", "unreadable")
        assert all(map(str, report.faults))
    finally:
        path.write_bytes(right)


def test_levels_of_unlike_types(tmp_path: Path) -> None:
    store = write_ome_zarr(tmp_path / "a.zarr", truth())
    other = write_ome_zarr(tmp_path / "b.zarr", truth("uint16", 2))
    shutil.rmtree(store / "s1")
    shutil.copytree(other / "s1", store / "s1")
    said = [str(fault) for fault in verify(store).faults]
    assert any("of uint16 below one of uint8" in fault for fault in said)
    assert any("other bands" in fault for fault in said)
