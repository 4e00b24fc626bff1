"""``tnet split``: a column that says what is for training, and what it says of it."""

import csv
import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from command_line import CommandLine, picture, write_png

from tnet.datasets.manifest import read_manifest


def rows_of(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Sixty images of thirty patients, in a folder of their own."""
    lines = ["image,label,patient,note"]
    for row in range(60):
        write_png(tmp_path / f"{row}.png", picture(12, 9, seed=row))
        lines.append(f'{row}.png,{"ab"[row % 4 < 2]},p{row // 2},"old, {row}"')
    path = tmp_path / "data.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_patients_are_not_parted(tnet: CommandLine, data: Path) -> None:
    done = tnet("split", data, "--by", "patient", "--val", 0.1, "--test", 0.2)
    assert done.code == 0
    out = data.with_name("data-split.csv")
    assert done.err == f"tnet: wrote {out}\n"
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["split", "images", "groups", "a", "b"]
    assert [line[:3] for line in lines[1:]] == [
        ["train", "42", "21"],
        ["val", "6", "3"],
        ["test", "12", "6"],
    ]
    assert Counter(row["split"] for row in rows_of(out)) == {"train": 42, "val": 6, "test": 12}
    places = defaultdict(set)
    for row in rows_of(out):
        places[row["patient"]].add(row["split"])
    assert all(len(where) == 1 for where in places.values())
    assert rows_of(out)[5]["note"] == "old, 5"
    assert [entry.split for entry in read_manifest(out).entries] == [
        row["split"] for row in rows_of(out)
    ]


def test_json_says_what_is_where(tnet: CommandLine, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    done = tnet("split", data, "--by", "patient", "-o", out, "--seed", 3, "--json")
    report = json.loads(done.out)
    assert (report["seed"], report["folds"], report["copies"]) == (3, None, [])
    (only,) = report["splits"]
    assert only["file"] == str(out)
    assert sum(only["images"].values()) == 60
    assert sum(only["groups"].values()) == 30
    rows = rows_of(out)
    for name, images in only["images"].items():
        own = Counter(row["label"] for row in rows if row["split"] == name)
        assert own == only["classes"][name]
        assert images == own.total()


def test_a_table_a_fold(tnet: CommandLine, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "cv" / "out.csv"
    done = tnet("split", data, "--by", "patient", "--folds", 5, "--test", 0.2, "-o", out)
    assert done.code == 0
    assert "--test is not used" in done.err
    files = [out.with_name(f"out-fold{number}.csv") for number in range(1, 6)]
    tested: Counter[str] = Counter()
    for file in files:
        assert str(file) in done.out
        splits = Counter(row["split"] for row in rows_of(file))
        assert set(splits) == {"train", "val", "test"}
        tested.update(row["image"] for row in rows_of(file) if row["split"] == "test")
        read_manifest(file)  # the images are found from the new folder
    assert len(tested) == 60
    assert set(tested.values()) == {1}
    assert not out.exists()


def test_copies_of_an_image_stay_together(tnet: CommandLine, data: Path) -> None:
    for row in (9, 21, 33, 45, 57):
        data.with_name(f"{row}.png").write_bytes(data.with_name("1.png").read_bytes())
    for seed in range(3):
        done = tnet("split", data, "--seed", seed, "--test", 0.4)
        assert "rows 3, 11, 23, 35, 47 and 1 more hold the same image, and stay" in done.err
        rows = rows_of(data.with_name("data-split.csv"))
        assert len({rows[i]["split"] for i in (1, 9, 21, 33, 45, 57)}) == 1


def test_another_split_column_is_replaced_and_the_delimiter_kept(
    tnet: CommandLine, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    lines = [f"{i}.png;{'ab'[i % 2]};{'train' if i else 'test'};{i}" for i in range(12)]
    path.write_text("\n".join(["file;class;Set;n", *lines]), encoding="utf-8")
    done = tnet("split", path, "--skip-images", "--val", 0)
    assert done.code == 0
    assert "its column of splits is replaced" in done.err
    rows = rows_of(tmp_path / "t-split.csv", ";")
    assert list(rows[0]) == ["file", "class", "split", "n"]
    assert set(Counter(row["split"] for row in rows)) == {"train", "test"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_spreadsheet_finds_its_letters_again(
    tnet: CommandLine, tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "t.csv"
    lines = ["image,label", *(f"{i}.png,{'äö'[i % 2]}" for i in range(12))]
    path.write_bytes("\r\n".join(lines).encode(encoding))
    assert tnet("split", path, "--skip-images").code == 0
    written = (tmp_path / "t-split.csv").read_bytes()
    assert written.startswith("\ufeffimage".encode()) == (encoding != "utf-8")
    assert written.decode("utf-8-sig").startswith("image,label,split\n0.png,ä,")


def test_several_labels(tnet: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = [f"{i}.png,{'|'.join('ab'[: i % 3])}" for i in range(30)]
    path.write_text("\n".join(["image,label", *lines]), encoding="utf-8")
    done = tnet("split", path, "--skip-images", "--separator", "|", "--json")
    counts = json.loads(done.out)["splits"][0]
    assert counts["images"] == {"train": 21, "val": 3, "test": 6}
    assert counts["classes"]["test"] == {"a": 4, "b": 2}
    assert "look like several" not in done.err
    path.write_text("\n".join(["image,label", *(line for line in lines if line[-1] != ",")]))
    done = tnet("split", path, "--skip-images", "-o", tmp_path / "other.csv")
    assert "labels such as 'a|b' (rows " in done.err
    assert "say --separator '|'" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--by", "hospital"], "no column 'hospital'"),
        (["--val", "0.6", "--test", "0.5"], "below 1 together"),
        (["--folds", "1"], "at least 2 folds"),
        (["--by", "patient", "--folds", "16"], "has 15 groups, fewer than the 16 splits"),
        (["-o", "data.csv"], "would be replaced by its own splits"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    tnet: CommandLine,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(data.parent)
    before = data.read_bytes()
    done = tnet("split", "data.csv", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "data.csv" in done.err
    assert done.err.count("\n") == 1
    assert data.read_bytes() == before


def test_rows_without_a_group_are_told(tnet: CommandLine, data: Path) -> None:
    data.write_text(data.read_text().replace(",p3,", ",,"), encoding="utf-8")
    done = tnet("split", data, "--by", "patient")
    assert done.code == 2
    assert "rows 8 and 9 have no patient" in done.err


def test_missing_images_are_told(tnet: CommandLine, data: Path) -> None:
    data.with_name("4.png").unlink()
    done = tnet("split", data)
    assert done.code == 2
    assert "row 6 names" in done.err
    assert tnet("split", data, "--skip-images").code == 0


def test_nothing_else_is_replaced(
    tnet: CommandLine, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    fold = data.rename("cv-fold1.csv")
    before = fold.read_bytes()
    done = tnet("split", fold, "--folds", 3, "-o", "cv.csv")
    assert (done.code, fold.read_bytes()) == (2, before)
    assert "would be replaced by its own splits" in done.err
    assert not Path("cv-fold2.csv").exists()
    other = Path("other.csv")
    other.write_text("made by hand")
    done = tnet("split", fold, "-o", other)
    assert (done.code, other.read_text()) == (2, "made by hand")
    assert "exists already" in done.err
    done = tnet("split", fold, "-o", "other.xlsx")
    assert done.code == 2
    assert "written as CSV" in done.err


def test_the_same_splits_may_be_written_again(tnet: CommandLine, data: Path) -> None:
    assert [tnet("split", data).code for _ in range(2)] == [0, 0]
    assert tnet("split", data, "--seed", 5).code == 2
