"""``tnet evaluate``: the figures it prints and writes, its page, and what it does with mistakes."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import CommandLine, Done, picture, write_model, write_png

from tnet.bundle import load, save
from tnet.datasets.entries import Entry
from tnet.geometry import Region
from tnet.record import Glimpse, Walk
from tnet.scripts.evaluation import Seen
from tnet.scripts.evaluation_boxes import found
from tnet.scripts.evaluation_page import page_of
from tnet.scripts.evaluation_report import report_of, text_of
from tnet.scripts.runs import Run

FIGURES = ("accuracy", "balanced_accuracy", "f1", "auroc", "auprc", "log_loss", "brier", "ece")
NAMED = (
    *("accuracy", "balanced_accuracy", "auroc", "auprc", "f1", "ece", "confusion", "intervals"),
    *("classes", "n", "split", "costs", "curve", "failed"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images, small and different."""
    place = tmp_path_factory.mktemp("images")
    for seed in range(8):
        write_png(place / f"{seed}.png", picture(seed=seed))
    return place


@pytest.fixture(scope="module")
def said(model: Path, folder: Path) -> list[str]:
    """What the model says of each image."""
    from tnet.adapters import open_pyramid
    from tnet.traversal import walk

    loaded = load(model)
    walks = [walk(loaded, [open_pyramid(folder / f"{n}.png")])[0] for n in range(8)]
    return [str(record.label) for record in walks]


def write_table(path: Path, *rows: Sequence[object], columns: str = "image,label") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns.split(","), *rows])
    return path


def document(done: Done) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(done.out)
    return read


@pytest.fixture
def table(folder: Path, said: list[str], tmp_path: Path) -> Path:
    """All images with the model's own answers as labels, but for the first two."""
    classes = ["grass", "=1+1", "water"]
    other = [classes[(classes.index(label) + 1) % 3] for label in said]
    labels = [*other[:2], *said[2:]]
    return write_table(tmp_path / "data.csv", *((folder / f"{n}.png", labels[n]) for n in range(8)))


def test_json_has_every_figure(
    tnet: CommandLine, model: Path, table: Path, said: list[str]
) -> None:
    done = tnet("evaluate", model, table, "--json", "--no-curve")
    assert done.code == 0
    read = document(done)
    assert set(NAMED) <= set(read)
    assert read["classes"] == ["grass", "=1+1", "water"]
    assert (read["n"], read["failed"], read["split"], read["curve"]) == (8, 0, "all", [])
    assert read["accuracy"] == 0.75
    assert np.trace(read["confusion"]) == 6
    assert np.sum(read["confusion"]) == 8
    columns = [said.count(name) for name in read["classes"]]
    assert np.sum(read["confusion"], axis=0).tolist() == columns
    assert set(read["intervals"]) == set(FIGURES)
    low, high = read["intervals"]["accuracy"]
    assert 0 <= low < 0.75 < high <= 1
    costs = read["costs"]
    assert (costs["glimpses"], costs["pixels"]) == (7, 7 * 64 * 64)
    assert costs["share"] == pytest.approx(7 * 64 * 64 / (120 * 90))
    assert costs["cpu_seconds"] > 0
    assert "no column split" in done.err


def test_text_for_people(tnet: CommandLine, model: Path, table: Path) -> None:
    done = tnet("evaluate", model, table, "--no-curve")
    assert done.code == 0
    assert re.search(r"^accuracy +0\.750 +\d\.\d{3} to \d\.\d{3}$", done.out, re.MULTILINE)
    assert re.search(r"^grass +\d+ +\d+ +\d+$", done.out, re.MULTILINE)
    assert re.search(r"^3,1 +7 +0\.750 +", done.out, re.MULTILINE)


def test_calibration_error_with_and_without_the_temperature(
    tnet: CommandLine, model: Path, table: Path, tmp_path: Path
) -> None:
    plain = document(tnet("evaluate", model, table, "--json", "--no-curve"))
    assert plain["calibration"] is None
    loaded = load(model)
    loaded.calibration = 4.0
    soft = save(loaded, tmp_path / "soft.safetensors")
    done = tnet("evaluate", soft, table, "--json", "--no-curve", "--out", tmp_path / "report")
    read = document(done)
    assert read["calibration"]["temperature"] == 4
    for name in ("ece", "log_loss", "brier"):
        assert read["calibration"][name] == pytest.approx(plain[name])
        assert read[name] != pytest.approx(plain[name])
    assert read["accuracy"] == plain["accuracy"]
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert f"calibration error {plain['ece']:.3f} ({read['ece']:.3f} with it)" in page
    assert "temperature 4," in tnet("evaluate", soft, table, "--no-curve").out


def test_nothing_is_written_unless_asked(
    tnet: CommandLine, model: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    before = sorted(table.parent.rglob("*"))
    assert tnet("evaluate", model, table, "--no-curve").code == 0
    assert sorted(table.parent.rglob("*")) == before


def test_curve_has_fewer_and_more_glimpses(tnet: CommandLine, model: Path, table: Path) -> None:
    curve = document(tnet("evaluate", model, table, "--json"))["curve"]
    # 0, 1/4, 1/2, 1 and 2 times 3,1.
    assert [point["steps"] for point in curve] == [[], [1, 1], [2, 1], [3, 1], [6, 2]]
    assert [point["glimpses"] for point in curve] == [1, 3, 5, 7, 19]
    assert [point["pixels"] for point in curve] == [n * 64 * 64 for n in (1, 3, 5, 7, 19)]
    assert all(point["n"] == 8 for point in curve)
    assert curve[3]["accuracy"] == 0.75


def test_curve_stops_where_the_grid_is_full(tnet: CommandLine, model: Path, table: Path) -> None:
    read = document(tnet("evaluate", model, table, "--json", "--glimpses", "16"))
    assert read["steps"] == [16]
    assert [point["steps"] for point in read["curve"]] == [[], [4], [8], [16]]


def test_files_of_a_report(
    tnet: CommandLine, model: Path, table: Path, said: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "report"
    done = tnet("evaluate", model, table, "--out", out, "--json", "--no-curve")
    assert done.code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "predictions.csv", "report.html", "report.json",
    ]  # fmt: skip
    assert json.loads((out / "report.json").read_text("utf-8")) == document(done)
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["image"]).name for row in rows] == [f"{n}.png" for n in range(8)]
    # A spreadsheet must not take a class for a formula.
    assert [row["predicted"].removeprefix("'") for row in rows] == said
    assert all(row["predicted"] != "=1+1" for row in rows)
    assert [row["correct"] for row in rows] == ["False"] * 2 + ["True"] * 6
    for row in rows:
        assert float(row["p_grass"]) + float(row["p_=1+1"]) + float(row["p_water"]) == (
            pytest.approx(1)
        )
        assert row["glimpses"] == "7"
        assert row["error"] == ""


class Page(HTMLParser):
    """Collects what a page asks a browser to load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.policy = ""
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data") or name.startswith("on"):
                self.loads.append(value or "")
            if name == "content" and value is not None and "default-src" in value:
                self.policy = value

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone(
    tnet: CommandLine, model: Path, folder: Path, said: list[str], tmp_path: Path
) -> None:
    hostile = tmp_path / "a<script>alert(1)<script>&amp;.png"
    hostile.write_bytes((folder / "0.png").read_bytes())
    wrong = next(name for name in ("grass", "water") if name != said[0])
    missing = tmp_path / "<img src=x onerror=y>.png"
    rows = [(hostile, wrong), (missing, "water"), (folder / "1.png", said[1])]
    table = write_table(tmp_path / "data.csv", *rows)
    assert tnet("evaluate", model, table, "--out", tmp_path / "out").code == 4
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    page = Page()
    page.feed(text)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(loaded.startswith("data:image/jpeg;base64,") for loaded in page.loads)
    assert page.tags.count("img") == len(page.loads) == 1
    assert "default-src 'none'" in page.policy
    assert "unsafe" not in page.policy
    assert page.tags.count("svg") == 2
    assert "a<script>alert(1)<script>&amp;.png" in page.text
    assert "<img src=x onerror=y>.png does not exist" in page.text
    assert "Accuracy against glimpses" in page.text


def test_one_broken_image_is_named_and_counted(
    tnet: CommandLine, model: Path, folder: Path, said: list[str], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"not an image")
    rows = [(folder / f"{n}.png", said[n]) for n in range(3)]
    table = write_table(tmp_path / "data.csv", *rows, ("broken.png", "grass"))
    done = tnet("evaluate", model, table, "--json", "--out", tmp_path / "out", "--batch", 4)
    assert done.code == 4
    read = document(done)
    assert (read["n"], read["failed"], read["accuracy"]) == (3, 1, 1.0)
    assert read["failures"][0]["row"] == 5
    assert "row 5" in done.err
    assert "broken.png" in done.err
    assert "Traceback" not in done.err
    last = (tmp_path / "out" / "predictions.csv").read_text("utf-8").splitlines()[-1]
    assert "broken.png" in last
    assert any("all are right" in note for note in read["notes"])


def test_nothing_but_broken_images(tnet: CommandLine, model: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "data.csv", ("gone.png", "grass"), ("away.png", "water"))
    done = tnet("evaluate", model, table, "--json", "--out", tmp_path / "out")
    assert done.code == 3
    read = document(done)
    assert (read["n"], read["failed"]) == (0, 2)
    assert all(read[name] is None for name in FIGURES)
    assert (tmp_path / "out" / "report.html").is_file()
    assert tnet("evaluate", model, table).code == 3


def test_a_label_that_the_model_does_not_know(
    tnet: CommandLine, model: Path, folder: Path, tmp_path: Path
) -> None:
    table = write_table(
        tmp_path / "data.csv", (folder / "0.png", "grass"), (folder / "1.png", "sand")
    )
    done = tnet("evaluate", model, table)
    assert done.code == 2
    assert done.out == ""
    assert "row 3" in done.err
    assert "grass" in done.err
    assert done.err.count("\n") == 1


def test_a_class_without_an_image_is_null(
    tnet: CommandLine, model: Path, folder: Path, tmp_path: Path
) -> None:
    table = write_table(tmp_path / "data.csv", *((folder / f"{n}.png", "grass") for n in range(4)))
    done = tnet("evaluate", model, table, "--json", "--no-curve", "--out", tmp_path / "out")
    assert done.code == 0
    read = document(done)
    assert read["auroc"] is None
    assert read["per_class"][2]["recall"] is None
    assert any("no image has the label =1+1, water" in note for note in read["notes"])


def splits(folder: Path, path: Path) -> Path:
    rows = [(folder / f"{n}.png", "grass", part) for n, part in enumerate(["train"] * 3 + ["test"])]
    return write_table(path, *rows, columns="image,label,split")


def test_only_the_rows_of_the_split(
    tnet: CommandLine, model: Path, folder: Path, tmp_path: Path
) -> None:
    table = splits(folder, tmp_path / "data.csv")
    for part, count in {"test": 1, "train": 3, "all": 4}.items():
        done = tnet("evaluate", model, table, "--json", "--no-curve", "--split", part)
        assert document(done)["n"] == count
        assert document(done)["split"] == part


def test_a_split_without_rows(tnet: CommandLine, model: Path, folder: Path, tmp_path: Path) -> None:
    done = tnet("evaluate", model, splits(folder, tmp_path / "data.csv"), "--split", "val")
    assert done.code == 2
    assert "3 of train, 1 of test" in done.err


def test_a_run_knows_what_it_learned_from(
    tnet: CommandLine, model: Path, folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(model.read_bytes())
    splits(folder, run / "splits.csv")
    rows = [(folder / f"{n}.png", "grass") for n in range(4)]
    table = write_table(tmp_path / "data.csv", *rows)
    read = document(tnet("evaluate", run, table, "--json", "--no-curve"))
    assert (read["n"], read["split"]) == (1, "test")
    done = tnet("evaluate", run, table, "--json", "--no-curve", "--split", "all")
    assert document(done)["n"] == 4
    assert "trained on 3 of these 4 images" in done.err
    file = run / "model.safetensors"
    done = tnet("evaluate", file, table, "--no-curve", "--split", "all")
    assert "trained on 3 of these 4 images" in done.err
    assert "note: no image has the label" in done.err


def test_a_run_knows_what_it_kept_back(
    tnet: CommandLine, model: Path, folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(model.read_bytes())
    table = splits(folder, tmp_path / "data.csv")
    text = table.read_text("utf-8")
    (run / "splits.csv").write_text(text.replace("train", "val", 1), "utf-8")
    for part, count in {"val": 1, "train": 2, "test": 1}.items():
        done = tnet("evaluate", run, table, "--json", "--no-curve", "--split", part)
        assert (document(done)["n"], document(done)["split"]) == (count, part)


def test_a_run_that_is_not_finished_is_told(
    tnet: CommandLine, model: Path, table: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    run.inner.mkdir(parents=True)
    run.model.write_bytes(model.read_bytes())
    run.checkpoint.write_bytes(b"")
    run.config.write_text("epochs: 30\n")
    run.metrics.write_text("epoch,val_loss\n1,3\n2,2\n")
    for named in (run.folder, run.model):
        done = tnet("evaluate", named, table, "--no-curve", "--json")
        assert done.code == 0
        assert "is not finished but stopped at epoch 2 of 30" in done.err
        assert any("epoch 2 of 30" in note for note in document(done)["notes"])
    run.finish({})
    assert "not finished" not in tnet("evaluate", run.folder, table, "--no-curve").err


def test_a_report_has_room_before_the_work_begins(
    tnet: CommandLine, model: Path, table: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    done = tnet("evaluate", model, table, "--no-curve", "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert "report.html is a folder; name another place with --out" in done.err
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_a_folder_without_a_model(tnet: CommandLine, table: Path, tmp_path: Path) -> None:
    done = tnet("evaluate", tmp_path, table)
    assert done.code == 2
    assert "holds no model.safetensors" in done.err


def test_groups_are_resampled_whole(
    tnet: CommandLine, model: Path, folder: Path, tmp_path: Path
) -> None:
    rows = [(folder / f"{n}.png", "grass", f"p{n // 4}") for n in range(8)]
    table = write_table(tmp_path / "data.csv", *rows, columns="image,label,patient")
    read = document(tnet("evaluate", model, table, "--json", "--no-curve"))
    assert read["groups"] == 2
    assert any("2 groups only" in note for note in read["notes"])


def test_boxes_are_found_level_by_level(
    tnet: CommandLine, model: Path, folder: Path, tmp_path: Path
) -> None:
    rows = [(folder / f"{n}.png", "grass", "50,40,10,10;5,5,4,4") for n in range(3)]
    table = write_table(
        tmp_path / "data.csv", *rows, (folder / "3.png", "grass", ""), columns="image,label,box"
    )
    every = ("evaluate", model, table, "--json", "--no-curve", "--glimpses", "16,9")
    read = document(tnet(*every, "--out", tmp_path / "out"))
    assert read["localisation"] == {
        "images": 3, "boxes": 6, "hit": 1.0, "recall": {"1": 1.0, "2": 1.0},
    }  # fmt: skip
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    assert (last["boxes"], last["hit"]) == ("0", "")
    none = document(tnet("evaluate", model, table, "--json", "--no-curve", "--glimpses", "0"))
    assert none["localisation"] is None


def test_a_box_outside_its_image_is_named(
    tnet: CommandLine, model: Path, folder: Path, tmp_path: Path
) -> None:
    rows = [(folder / "0.png", "grass", "5,5,4,4"), (folder / "1.png", "grass", "500,5,4,4")]
    table = write_table(tmp_path / "data.csv", *rows, columns="image,label,box")
    done = tnet("evaluate", model, table, "--json", "--no-curve")
    assert (done.code, document(done)["n"]) == (4, 1)
    assert "the box 500,5,4,4 lies outside the image of 120 x 90 pixels" in done.err
    assert f"{table}, row 3: " in done.err


def test_a_mask_is_as_good_as_boxes(
    tnet: CommandLine, model: Path, folder: Path, tmp_path: Path
) -> None:
    mask = np.zeros((9, 12), np.uint8)
    mask[2:4, 3:5] = mask[7, 9] = 255  # two parts
    write_png(tmp_path / "mask.png", mask)
    rows = [(folder / f"{n}.png", "grass", "mask.png") for n in range(2)]
    table = write_table(tmp_path / "data.csv", *rows, columns="image,label,mask")
    read = document(tnet("evaluate", model, table, "--json", "--no-curve", "--glimpses", "16,9"))
    assert (read["localisation"]["boxes"], read["localisation"]["hit"]) == (4, 1.0)


def test_a_model_that_looks_at_all_tiles(
    tnet: CommandLine, model: Path, folder: Path, table: Path, tmp_path: Path
) -> None:
    tiles = load(model)
    tiles.plan = replace(tiles.plan, view=(32, 32), steps=(), tiles="native")
    save(tiles, tmp_path / "tiles.safetensors")
    command = ("evaluate", tmp_path / "tiles.safetensors", table)
    read = document(tnet(*command, "--json"))
    # 120 x 90 pixels are 4 x 3 tiles; the overview that finds them costs no pass.
    assert (read["costs"]["glimpses"], read["costs"]["pixels"]) == (12, 12 * 32 * 32)
    assert (read["steps"], read["curve"]) == (None, [])
    assert "all tiles" in tnet(*command).out
    said = json.loads(tnet("classify", folder / "0.png", "--model", command[1], "--json").out)
    assert said["results"][0]["glimpses"] == 12


def test_a_box_is_found_where_its_centre_is() -> None:
    def glimpse(level: int, region: Region, parent: int | None) -> Glimpse:
        return Glimpse(level, region, parent, None, None, 1.0, 0.0, 0, 0.3, (0.0,))

    walk = Walk(
        "x", 100, 100, ("a",), np.zeros(1), np.ones(1), "class", (0.0,),
        (
            glimpse(0, Region(0, 0, 100, 100), None),
            glimpse(1, Region(0, 0, 50, 50), 0),
            glimpse(2, Region(10, 10, 10, 10), 1),
        ),
        (8, 8),
    )  # fmt: skip
    inside, beside, away = Region(12, 12, 4, 4), Region(20, 20, 4, 4), Region(40, 40, 60, 60)
    assert found(walk, (inside, beside, away)) == (2, 1)


def test_an_empty_image_counts_as_wrong(
    tnet: CommandLine, model: Path, folder: Path, said: list[str], tmp_path: Path
) -> None:
    careful = load(model)
    careful.plan = replace(careful.plan, background=0.1)
    save(careful, tmp_path / "careful.safetensors")
    write_png(tmp_path / "glass.png", np.full((90, 120, 3), 250, np.uint8))
    table = write_table(tmp_path / "data.csv", (folder / "0.png", said[0]), ("glass.png", said[0]))
    done = tnet("evaluate", tmp_path / "careful.safetensors", table, "--json", "--no-curve")
    read = document(done)
    assert (read["n"], read["accuracy"]) == (2, 0.5)
    assert sum(read["unanswered"]) == 1
    assert any("nothing but background" in note for note in read["notes"])


def test_walks_that_draw_are_repeatable(
    tnet: CommandLine, model: Path, table: Path, tmp_path: Path
) -> None:
    blind = load(model)
    blind.plan = replace(blind.plan, policy="uniform")
    save(blind, tmp_path / "blind.safetensors")
    command = ("evaluate", tmp_path / "blind.safetensors", table, "--json", "--no-curve")
    first, again, other = (
        document(tnet(*command, "--seed", seed))["log_loss"] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_several_labels(tnet: CommandLine, model: Path, folder: Path, tmp_path: Path) -> None:
    several = load(model)
    several.multilabel = True
    save(several, tmp_path / "several.safetensors", training={"config": {"separator": ";"}})
    labels = ["grass", "grass;water", "", "water"]
    rows = [(folder / f"{n}.png", label) for n, label in enumerate(labels)]
    table = write_table(tmp_path / "data.csv", *rows)
    command = ("evaluate", tmp_path / "several.safetensors", table, "--no-curve")
    done = tnet(*command, "--json", "--out", tmp_path / "out")
    assert done.code == 0
    read = document(done)
    assert read["multilabel"] is True
    assert np.shape(read["confusion"]) == (3, 2, 2)
    assert [row["n"] for row in read["per_class"]] == [2, 0, 2]
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        kept = list(csv.DictReader(file))
    ps = [[float(row[f"p_{name}"]) for name in read["classes"]] for row in kept]
    target = np.array([[name in text.split(";") for name in read["classes"]] for text in labels])
    assert read["accuracy"] == pytest.approx(float(((np.array(ps) > 0.5) == target).mean()))
    assert not np.allclose(np.sum(ps, axis=1), 1)
    assert tnet("evaluate", model, table, "--separator", ";").code == 2


@pytest.mark.parametrize(
    ("flags", "said_of_it"),
    [
        (["--glimpses", "many"], "--glimpses takes whole numbers"),
        (["--glimpses", "17"], "between 0 and 16"),
        (["--split", "holdout"], "holdout"),
    ],
)
def test_wrong_flags(
    tnet: CommandLine, model: Path, table: Path, flags: list[str], said_of_it: str
) -> None:
    done = tnet("evaluate", model, table, *flags)
    assert (done.code, done.out) == (2, "")
    assert said_of_it in done.err


def test_a_table_that_is_missing(tnet: CommandLine, model: Path, tmp_path: Path) -> None:
    done = tnet("evaluate", model, tmp_path / "gone.csv")
    assert done.code in (2, 3)
    assert "gone.csv" in done.err
    assert done.err.count("\n") == 1


def test_a_folder_that_cannot_be_made(
    tnet: CommandLine, model: Path, table: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = tnet("evaluate", model, table, "--out", tmp_path / "file" / "out")
    assert (done.code, done.out) == (2, "")
    assert "--out" in done.err


def many(classes: int, *, silent: int = 0) -> dict[str, Any]:
    """The report of three images a class, of which each class's last is taken for the next."""
    names = tuple(f"<class {index}>" for index in range(classes))
    seen = []
    for index in range(3 * classes):
        true = index // 3
        said = (true + (index % 3 == 2)) % classes
        entry = Entry(index + 2, Path(f"{index}.png"), (names[true],))
        p = tuple(0.5 if place == said else 0.5 / (classes - 1) for place in range(classes))
        one = Seen(entry, probabilities=p, answered=index >= silent, glimpses=3)
        seen.append(one)
    report = report_of(seen, names, multilabel=False, seed=0)
    made = {"time": "", "seconds": 1.0, "device": "cpu", "tnet": "", "torch": "", "seed": 0}
    named = {"model": "m", "data": "d", "split": "test", "steps": [2], "curve": []}
    return {**named, **report, "made": made | {"plan": {}, "training": {}}}


def test_the_page_of_many_classes_names_the_commonest_confusions() -> None:
    page = page_of(many(30))
    assert "Commonest confusions" in page
    assert page.count("&lt;class 3&gt;") >= 2
    assert "<class" not in page


def test_the_page_of_few_classes_shows_every_count() -> None:
    page = page_of(many(4, silent=1))
    assert "no answer" in page
    # Of the first class: one right, one wrong, one without an answer.
    row = re.search(r'<tr><th scope="row">&lt;class 0&gt;</th>(<td class="s.*?)</tr>', page)
    assert row is not None
    assert re.findall(r">(\d+)<", row[1]) == ["1", "1", "0", "0", "1"]


def test_text_of_many_classes_is_short() -> None:
    assert len(text_of(many(30)).splitlines()) < 20
    assert "<class 2>" in text_of(many(4))
