"""``tnet verify``: exit codes, words for people, one JSON document for programs."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, picture, write_png
from make_images import truth, write_ome_zarr

from tnet.adapters.storage.conversion import convert
from tnet.adapters.storage.listing import Listing, listed
from tnet.adapters.storage.seal import SEAL


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images and their stores."""
    for seed, name in enumerate("ab"):
        convert(write_png(tmp_path / f"{name}.png", picture(300, 200, seed=seed)),
                tmp_path / f"{name}.zarr")  # fmt: skip
    return tmp_path


def hurt(store: Path) -> None:
    with (store / "0/c/0/0/0").open("r+b") as file:
        file.seek(50)
        byte = file.read(1)[0]
        file.seek(50)
        file.write(bytes([byte ^ 1]))


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*")}


def results(out: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(out)["results"]
    return found


def test_whole_stores(tnet: CommandLine, folder: Path) -> None:
    before = listing(folder)
    done = tnet("verify", folder / "a.zarr", folder / "b.zarr")
    assert (done.code, done.err) == (0, "")
    first, second = done.out.splitlines()
    assert first.startswith(f"{folder / 'a.zarr'}: whole (6 files, ")
    assert second.startswith(f"{folder / 'b.zarr'}: whole")
    assert listing(folder) == before


def test_a_folder_means_its_stores(tnet: CommandLine, folder: Path) -> None:
    """Images and unfinished stores beside them are passed over."""
    shutil.copytree(folder / "a.zarr", folder / ".c.zarr.partial")
    for argument in (folder, folder / "*"):
        done = tnet("verify", argument, "--json")
        assert done.code == 0
        assert [Path(r["store"]).name for r in results(done.out)] == ["a.zarr", "b.zarr"]


def test_one_hurt_store_of_two(tnet: CommandLine, folder: Path) -> None:
    hurt(folder / "b.zarr")
    done = tnet("verify", folder)
    assert done.code == 4
    _, store, fault = done.out.splitlines()
    assert store.startswith(f"{folder / 'b.zarr'}: hurt, 1 fault (6 files, ")
    assert fault == (
        "  0/c/0/0/0 has been changed or damaged and cannot be decoded (its checksum is wrong): "
        "level 0, x 0 to 255, y 0 to 199"
    )
    assert tnet("verify", folder / "b.zarr").code == 3


def test_json(tnet: CommandLine, folder: Path) -> None:
    hurt(folder / "b.zarr")
    document = json.loads(tnet("verify", folder, "--json").out)
    assert list(document) == ["results", "failed"]
    assert document["failed"] == 1
    whole, broken = document["results"]
    assert list(whole) == [
        "store", "outcome", "sealed", "files", "bytes", "faults", "notes", "seconds",
    ]  # fmt: skip
    assert (whole["outcome"], whole["sealed"], whole["files"]) == ("whole", True, 6)
    assert (whole["faults"], whole["notes"]) == ([], [])
    (fault,) = broken["faults"]
    assert (fault["file"], fault["level"], fault["region"]) == ("0/c/0/0/0", 0, [0, 0, 256, 200])
    assert "its checksum is wrong" in fault["what"]


def test_repair(tnet: CommandLine, folder: Path) -> None:
    right = (folder / "b.zarr/0/c/0/0/0").read_bytes()
    hurt(folder / "b.zarr")
    done = tnet("verify", folder / "b.zarr", "--repair", folder / "b.png", "--json")
    assert done.code == 0
    (result,) = results(done.out)
    assert result["outcome"] == "repaired"
    assert [fault["file"] for fault in result["faults"]] == ["0/c/0/0/0"]
    assert (folder / "b.zarr/0/c/0/0/0").read_bytes() == right
    assert tnet("verify", folder / "b.zarr").code == 0


def test_repair_from_a_folder(tnet: CommandLine, folder: Path) -> None:
    hurt(folder / "a.zarr")
    hurt(folder / "b.zarr")
    (folder / "b.png").unlink()
    done = tnet("verify", folder, "--repair", folder)
    assert done.code == 4
    assert f"{folder / 'a.zarr'}: repaired, 1 fault" in done.out
    assert f"{folder / 'b.zarr'}: hurt, 1 fault" in done.out
    assert done.err == (
        f"tnet: {folder / 'b.png'} does not exist; name with --repair what {folder / 'b.zarr'} "
        "was made from\n"
    )


def test_repair_of_a_seal_needs_the_file_itself(tnet: CommandLine, folder: Path) -> None:
    (folder / "a.zarr" / SEAL).unlink()
    done = tnet("verify", folder / "a.zarr", "--repair", folder)
    assert (done.code, done.out) == (3, "")
    assert "name the file itself" in done.err
    assert tnet("verify", folder / "a.zarr", "--repair", folder / "a.png").code == 0
    assert tnet("verify", folder / "a.zarr").code == 0


def test_a_wrong_source_is_refused_at_once(tnet: CommandLine, folder: Path) -> None:
    hurt(folder / "a.zarr")
    before = listing(folder)
    done = tnet("verify", folder / "a.zarr", "--repair", folder / "b.png")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(
        f"tnet: {folder / 'b.png'} is not what {folder / 'a.zarr'} was made from (a.png, "
    )
    assert listing(folder) == before


def test_a_repair_that_cannot_be_written(
    tnet: CommandLine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurt(folder / "a.zarr")
    before = (folder / "a.zarr/0/c/0/0/0").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tnet.adapters.storage.staging.write_pieces", full)
    done = tnet("verify", folder / "a.zarr", "--repair", folder / "a.png")
    assert done.code == 6
    assert done.err == f"tnet: {folder / 'a.zarr'} cannot be written (No space left on device)\n"
    assert (folder / "a.zarr/0/c/0/0/0").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "a.zarr", "b.png", "b.zarr"]


def test_a_foreign_store_is_not_repaired(tnet: CommandLine, tmp_path: Path) -> None:
    store = write_ome_zarr(tmp_path / "a.zarr", truth())
    (store / "s0/c/0/0/0").write_text("no chunk")
    image = write_png(tmp_path / "a.png", truth())
    done = tnet("verify", store, "--repair", image)
    assert done.code == 3
    assert done.err.endswith("can be repaired; make it again\n")
    assert "has no seal" in done.err


def test_many_faults_are_cut(tnet: CommandLine, tmp_path: Path) -> None:
    store = write_ome_zarr(tmp_path / "a.zarr", truth(size=(1000, 203)))
    chunks = sorted((store / "s0/c").rglob("*/*/*"))
    for chunk in chunks[:25]:
        chunk.write_text("no chunk")
    lines = tnet("verify", store).out.splitlines()
    assert len(lines) == 1 + 20 + 1 + 2
    assert lines[21] == "  and 5 more; --json lists them all"
    assert all(line.startswith("  note: it") for line in lines[22:])
    assert len(results(tnet("verify", store, "--json").out)[0]["faults"]) == 25


def test_what_is_no_store(tnet: CommandLine, folder: Path) -> None:
    done = tnet("verify", folder / "none.zarr")
    assert done.code == 3
    assert done.out.splitlines()[1] == (f"  {folder / 'none.zarr'} does not exist; check the name")
    assert tnet("verify", folder / "a.png", folder / "a.zarr").code == 4


@pytest.mark.parametrize("arguments", [[], [""], ["."], ["*.zarr"], ["http://host/a.zarr"]])
def test_wrong_usage_is_code_2(
    tnet: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    write_png(tmp_path / "a.png", picture())
    monkeypatch.chdir(tmp_path)
    done = tnet("verify", *arguments)
    assert (done.code, done.out) == (2, "")


def test_progress(tnet: CommandLine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tnet.scripts.progress._QUIET_SECONDS", 0.0)
    done = tnet("verify", folder / "a.zarr")
    assert done.code == 0
    assert done.err.startswith(f"tnet: {folder / 'a.zarr'}: ")
    assert "MB/s, about " in done.err


def test_a_slip_of_ours_is_one_store_s_failure(
    tnet: CommandLine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(store: Path) -> Listing:
        if store.name == "a.zarr":
            raise MemoryError
        return listed(store)

    monkeypatch.setattr("tnet.adapters.storage.verify.listed", forgetful)
    done = tnet("verify", folder, "--json")
    assert done.code == 4
    assert [result["outcome"] for result in results(done.out)] == ["unreadable", "whole"]
    assert "not enough memory" in done.err


@pytest.mark.parametrize("flags", [("--max-pixels", "1000"), ("--max-memory", "10kB")])
def test_a_limit_is_no_damage(tnet: CommandLine, tmp_path: Path, flags: tuple[str, str]) -> None:
    source = write_png(tmp_path / "a.png", picture(300, 200))
    assert tnet("convert", source, tmp_path / "a.zarr").code == 0
    done = tnet("verify", tmp_path / "a.zarr", *flags, "--json")
    assert done.code == 3
    (result,) = json.loads(done.out)["results"]
    assert result["outcome"] == "unreadable"
    assert flags[0] in result["faults"][0]["what"]
