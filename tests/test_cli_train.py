"""`tnet train` as a user runs it: begun, stopped, gone on with, refused, compared with."""

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from command_line import CommandLine
from PIL import Image
from safetensors.torch import load_file

from tnet.adapters import open_pyramid
from tnet.bundle import load
from tnet.datasets.manifest import read_manifest
from tnet.record import Walk
from tnet.scripts.epochs import Epochs
from tnet.scripts.evaluation_rows import trained_on
from tnet.scripts.parts import Parts, write_parts
from tnet.scripts.runs import Run

SMALL = ("--backbone", "test_resnet", "--device", "cpu", "--set", "view=16", "--set", "batch=4")


def options(**values: Any) -> list[str]:
    told = {"epochs": 2, "glimpses": 2, **values}
    return [*SMALL, *(part for name in told for part in ("--set", f"{name}={told[name]}"))]


def paint(path: Path, label: int, seed: int, side: int = 48) -> None:
    """Write an image that is a little more red or more green than it is blue."""
    pixels = np.random.default_rng(seed).integers(40, 90, (side, side, 3)).astype(np.uint8)
    pixels[..., label] += 90
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table as a spreadsheet writes it, of 22 images of which one is broken."""
    folder = tmp_path_factory.mktemp("pictures")
    lines = ["image,label"]
    for i in range(22):
        paint(folder / f"{i}.png", i % 2, i)
        lines.append(f"{i}.png,{'red' if i % 2 == 0 else 'green'}")
    (folder / "21.png").write_bytes(b"no picture at all")
    (folder / "data.csv").write_bytes("\r\n".join([*lines, ""]).encode("utf-8-sig"))
    return folder


@pytest.fixture
def data(pictures: Path) -> Path:
    return pictures / "data.csv"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def difference(one: Path, other: Path) -> float:
    a, b = load_file(one), load_file(other)
    assert set(a) == set(b)
    return max(float((a[key].double() - b[key].double()).abs().max()) for key in a)


def at_batch(number: int, act: Any, patch: pytest.MonkeyPatch) -> None:
    """Let something happen after a number of batches."""
    step, seen = Epochs.step, [0]

    def counted(self: Epochs, loss: float | None) -> None:
        step(self, loss)
        seen[0] += 1
        if seen[0] == number:
            act()

    patch.setattr(Epochs, "step", counted)


def test_a_table_becomes_a_model(tnet: CommandLine, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = tnet("train", data, "--out", run, "--json", *options(epochs=6, lr=3e-3, augment="none"))
    assert done.code == 0, done.err
    page = json.loads(done.out)
    assert page["measured"]["val_accuracy"] == 1
    assert page["unreadable"] == 1
    assert page["classes"] == ["green", "red"]
    assert page["calibration"]["temperature"] == 1
    assert "2 validation images are fewer than 10" in done.err
    model = load(run / "model.safetensors")
    assert model.classes == ("green", "red")
    assert model.training_record["seed"] == 0
    assert len(model.training_record["data"]["sha256"]) == 64
    assert model.training_record["epoch"] == page["best_epoch"]
    epochs = rows(run / "metrics.csv")
    assert [row["epoch"] for row in epochs] == ["1", "2", "3", "4", "5", "6"]
    areas = [float(row["val_auroc"]) for row in epochs]
    assert areas[page["best_epoch"] - 1] == max(areas)
    assert float(epochs[-1]["train_loss"]) < float(epochs[0]["train_loss"])
    assert yaml.safe_load((run / "config.yaml").read_text())["backbone"] == "test_resnet"
    (broken,) = rows(run / "unreadable.csv")
    assert (broken["row"], Path(broken["image"]).name) == ("23", "21.png")
    splits = [row["split"] for row in rows(run / "splits.csv")]
    assert (splits.count("train"), splits.count("unreadable")) == (19, 1)
    # What is going to be done is said before, and a line an epoch while it is.
    told = ("21.png", "for validation: 2 of its 21", "plan: level 1", "splits.csv", "in all about")
    places = [done.err.index(said) for said in told]
    assert places == sorted(places)
    assert done.err.count("epoch 6/6:") == 1
    assert "Lightning" not in done.err
    picture = data.parent / "0.png"
    done = tnet("classify", picture, "--model", run / "model.safetensors", "--json")
    assert json.loads(done.out)["results"][0]["label"] == "red"


@pytest.mark.parametrize(
    "told",
    [
        {},
        {
            "accumulate": 2,
            "samples": 2,
            "baseline": "samples",
            "anneal": 4,
            "dropout": 0.2,
            "vary": "{shift: 0.1}",
        },
    ],
    ids=["plain", "everything"],
)
def test_a_stopped_training_goes_on_as_if_nothing_had_been(
    tnet: CommandLine, data: Path, tmp_path: Path, told: dict[str, Any]
) -> None:
    given = options(augment="light", **told)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert tnet("train", data, "--out", whole, *given).code == 0
    with pytest.MonkeyPatch.context() as patch:
        at_batch(2, lambda: os.kill(os.getpid(), signal.SIGINT), patch)
        done = tnet("train", data, "--out", parts, *given)
    assert done.code == 130
    assert "the same command goes on from here" in done.err
    assert Run(parts).progress() == (0, 2)
    with pytest.MonkeyPatch.context() as patch:  # now amid the second epoch, without a farewell
        at_batch(5, lambda: 1 / 0, patch)
        assert tnet("train", data, "--out", parts, *given).code == 1
    done = tnet("train", data, "--out", parts, *given)
    assert done.code == 0
    assert "goes on where it was" in done.err
    for name in ("last.safetensors", "model.safetensors"):
        assert difference(whole / name, parts / name) <= 1e-6
    both = [rows(run / "metrics.csv") for run in (whole, parts)]
    assert [row["epoch"] for row in both[1]] == ["1", "2"]
    assert both[0][1]["val_loss"] == both[1][1]["val_loss"]
    done = tnet("train", data, "--out", parts, "--json", *given)
    assert done.code == 0
    assert "is finished" in done.err
    assert json.loads(done.out)["epochs"] == 2


def test_probabilities_are_calibrated_on_the_validation_images(
    tnet: CommandLine, tmp_path: Path
) -> None:
    """With every fourth label wrong nobody may be sure; a kill in between changes nothing."""
    lines = ["image,label,split"]
    for i in range(28):
        paint(tmp_path / f"{i}.png", i % 2, i)
        label = "red" if (i % 2 == 0) != (i % 4 == 3) else "green"
        lines.append(f"{i}.png,{label},{'train' if i < 8 else 'val'}")
    table = tmp_path / "data.csv"
    table.write_text("\n".join(lines))
    given = options(augment="none", epochs=3, lr=3e-2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = tnet("train", table, "--out", whole, "--json", *given)
    assert done.code == 0, done.err
    found = json.loads(done.out)["calibration"]
    assert found["reason"] is None
    assert found["images"] == 20
    assert found["log_loss"][1] < found["log_loss"][0]
    assert f"calibration: temperature {found['temperature']:.3g}, fitted on 20" in done.err
    assert load(whole / "model.safetensors").calibration == found["temperature"]
    with pytest.MonkeyPatch.context() as patch:
        at_batch(5, lambda: 1 / 0, patch)
        assert tnet("train", table, "--out", parts, *given).code == 1
    done = tnet("train", table, "--out", parts, "--json", *given)
    assert json.loads(done.out)["calibration"] == found
    model, out = whole / "model.safetensors", tmp_path / "o"
    assert tnet("classify", tmp_path / "0.png", "--model", model, "--out", out).code == 0
    walk = Walk.from_json((out / "walks" / "0.json").read_text(encoding="utf-8"))
    soft = np.exp(walk.logits / found["temperature"])
    assert walk.confidence == pytest.approx((soft / soft.sum()).max())
    assert rows(out / "predictions.csv")[0]["confidence"] == str(walk.confidence)


def test_a_run_is_of_one_configuration_one_table_and_one_process(
    tnet: CommandLine, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert tnet("train", data, "--out", run, *options(epochs=1)).code == 0
    done = tnet("train", data, "--out", run, *options(epochs=1, lr=0.5))
    assert done.code == 2
    assert "was begun with lr=0.0005 and is now asked for 0.5" in done.err
    other = data.with_name("other.csv")
    other.write_text(data.read_text("utf-8-sig"))
    done = tnet("train", other, "--out", run, *options(epochs=1))
    assert done.code == 2
    assert "was begun with another table" in done.err
    with Run(run).held():
        done = tnet("train", data, "--out", run, *options(epochs=1))
    assert done.code == 5
    assert "is being written by process" in done.err
    # The run's own file says all of it.
    done = tnet("train", data, "--out", run, "--config", run / "config.yaml")
    assert done.code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "name a folder for the training with --out"),
        (["--out", "{data}"], 2, "is a file; name a folder"),
        (["--out", "{folder}"], 2, "holds other files and is no run"),
        (["--out", "{new}", "--set", "epoch=1"], 2, "did you mean 'epochs'"),
        (["--out", "{new}", "--backbone", "nonesuch"], 2, "timm has no model named 'nonesuch'"),
        (["--out", "{new}", "--set", "absent=blue"], 2, "absent names the class 'blue'"),
        (["--out", "{new}", "--set", "finest_mpp=1"], 3, "add a column mpp to the table"),
        (["--out", "{new}", "--pretrained", "{data}"], 3, "is neither of torch.save nor"),
        (["--out", "{new}", "--from", "{folder}"], 2, "holds no model.safetensors"),
        (["--out", "{new}", "--glimpses", ""], 2, "--glimpses is empty; say something"),
        (["--out", "{new}", "--from", " "], 2, "--from is empty"),
        (["--out", "{new}", "--set", "supervise=1"], 2, "no image to train on has a box or a"),
        (["--out", "{data}/run"], 2, "cannot be written, for something else is in its place"),
        (["--out", "{new}", "--config", "{folder}"], 2, "cannot be read (Is a directory)"),
    ],
)
def test_mistakes_are_one_sentence(
    tnet: CommandLine, data: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    names = {"{data}": data, "{folder}": data.parent, "{new}": tmp_path / "run"}
    names["{data}/run"] = data / "run"
    done = tnet("train", data, *(names.get(part, part) for part in arguments))
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_dry_run_tells_and_writes_nothing(tnet: CommandLine, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = tnet("train", data, "--out", run, "--dry-run", "--json", *options())
    assert done.code == 0
    page = json.loads(done.out)
    assert "splits.csv" not in done.err
    assert page["looks"] == 3
    assert page["expected_seconds"] > 0
    assert page["steps"] == 2 * 5
    assert not run.exists()


def test_the_plan_is_shown_before_a_trial_that_may_not_end(
    tnet: CommandLine, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("tnet.scripts.training.measured", dies)
    told = options(epochs=1, batch=1, finest=0.01)
    done = tnet("train", data, "--dry-run", *told)
    assert done.code != 0
    assert "plan: level 1" in done.err
    assert "note: the last views enlarge the image's own pixels 100 times" in done.err
    assert "1 epoch of 19 batches of 1 image on the cpu" in done.err


@pytest.mark.parametrize(
    ("able", "kind"), [(False, "bf16-mixed"), (False, "auto"), (True, "bf16-mixed")]
)
def test_a_precision_that_the_cpu_has_no_instructions_for_is_noted(
    tnet: CommandLine, data: Path, monkeypatch: pytest.MonkeyPatch, able: bool, kind: str
) -> None:
    monkeypatch.setattr("tnet.scripts.showing.has_bf16", lambda: able)
    told = options(epochs=1, precision=kind)
    done = tnet("train", data, "--dry-run", "--json", *told)
    assert done.code == 0, done.err
    slow = not able and kind == "bf16-mixed"
    assert ("note: this CPU has no instructions for bf16" in done.err) == slow
    assert any("--set precision=32-true" in note for note in json.loads(done.out)["notes"]) == slow


def test_images_of_background_are_named_and_left_out(
    tnet: CommandLine, data: Path, tmp_path: Path
) -> None:
    lines = ["image,label,split"]
    for i in range(12):
        pixels = np.full((48, 48, 3), 250 if i in (4, 10) else 90, np.uint8)
        pixels[0, i] = 0 if i not in (4, 10) else 249
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{'ab'[i % 2]},{'train' if i < 8 else 'val'}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    run = tmp_path / "run"
    done = tnet("train", tmp_path / "t.csv", "--out", run, "--json", *options(epochs=1))
    assert done.code == 0, done.err
    assert "2 images show nothing but background and are left out, the first in row 6" in done.err
    page = json.loads(done.out)
    assert (page["blank"], page["images"]["train"]) == (2, {"a": 3, "b": 4})
    assert [row["split"] for row in rows(run / "splits.csv")].count("background") == 2
    done = tnet("evaluate", run, tmp_path / "t.csv", "--split", "val", "--no-curve", "--json")
    assert json.loads(done.out)["n"] == 4
    assert "1 image shows nothing but background" in done.err


@pytest.mark.parametrize("kind", ["thumbnail", "random", "tiles"])
def test_what_it_is_compared_with_trains_in_the_same_way(
    tnet: CommandLine, data: Path, tmp_path: Path, kind: str
) -> None:
    run = tmp_path / "run"
    done = tnet("train", data, "--out", run, "--model", kind, *options(epochs=1))
    assert done.code == 0, done.err
    model = load(run / "model.safetensors")
    plan = model.plan
    assert bool(plan.steps) == (kind == "random")
    assert plan.policy == ("uniform" if kind == "random" else "greedy")
    assert (plan.tiles is not None) == (run / "features").exists() == (kind == "tiles")
    begun = load(run / "checkpoints" / "initial.safetensors")
    pairs = zip(begun.backbone.parameters(), model.backbone.parameters(), strict=True)
    frozen = all(torch.equal(before, after) for before, after in pairs)
    assert frozen == (kind == "tiles")


def test_runs_share_what_a_frozen_backbone_saw(
    tnet: CommandLine, data: Path, tmp_path: Path
) -> None:
    shared, sizes = tmp_path / "shared" / "looks", []
    weights = tmp_path / "0" / "model.safetensors"
    for number, more in enumerate(((), ("--pretrained", weights), ("--pretrained", weights))):
        run = tmp_path / str(number)
        told = options(epochs=1, looks=shared, augment="none", seed=number)
        done = tnet("train", data, "--out", run, "--model", "tiles", *told, *more)
        assert done.code == 0, done.err
        assert not (run / "features").exists()
        sizes.append(shared.stat().st_size)
    # All have the first one's frozen backbone, and all look at every tile of every image.
    assert sizes[0] == sizes[1] == sizes[2]


def test_a_run_is_started_from_another_one(tnet: CommandLine, data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert tnet("train", data, "--out", first, *options(epochs=1)).code == 0
    more = ("--device", "cpu", "--set", "epochs=1", "--set", "batch=4", "--glimpses", "2,1")
    done = tnet("train", data, "--out", second, "--from", first, *more)
    assert done.code == 0, done.err
    assert f"arrays come from {first}" in done.err
    assert [step.glimpses for step in load(second / "model.safetensors").plan.steps] == [2, 1]


def test_what_was_trained_on_is_known_from_other_folders(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    manifest = read_manifest(Path(data.name))
    parts = Parts(manifest, train=manifest.entries[:1], val=manifest.entries[1:])
    write_parts(Run(tmp_path), parts, None)
    monkeypatch.chdir(tmp_path)
    assert trained_on(str(tmp_path))[(data.parent / "0.png").resolve()] == "train"


@pytest.mark.parametrize("left", [0, 3000])
def test_a_damaged_checkpoint_is_named(
    tnet: CommandLine, data: Path, tmp_path: Path, left: int
) -> None:
    run, given = tmp_path / "run", options(augment="none")
    with pytest.MonkeyPatch.context() as patch:
        at_batch(2, lambda: os.kill(os.getpid(), signal.SIGINT), patch)
        assert tnet("train", data, "--out", run, *given).code == 130
    checkpoint = run / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:left])
    done = tnet("train", data, "--out", run, *given)
    assert done.code == 3
    assert f"{checkpoint}: is damaged" in done.err
    assert "Traceback" not in done.err
    checkpoint.unlink()  # as the sentence says
    assert tnet("train", data, "--out", run, *given).code == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [1", "is not YAML"),
        ("epochs: 2", "it does not say which table it was"),
        ("about: 3", "it does not say which table it was"),
        ("xyzzy: 3\nabout: {data_sha256: x}", "there is no key 'xyzzy'"),
        ("lr: fast\nabout: {data_sha256: x}", "lr must be a number"),
    ],
)
def test_a_damaged_configuration_is_named(
    tnet: CommandLine, data: Path, tmp_path: Path, text: str, why: str
) -> None:
    run = Run(tmp_path / "run")
    with run.held():
        run.finish({})
    run.config.write_text(text)
    done = tnet("train", data, "--out", run.folder, *options())
    assert done.code == 2
    assert f"{run.config}: is damaged, so that nobody knows what" in done.err
    assert why in done.err
    assert "Traceback" not in done.err


def test_a_folder_in_the_place_of_a_file_is_no_full_disk(
    tnet: CommandLine, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").mkdir()
    done = tnet("train", data, "--out", tmp_path / "run", *options())
    assert done.code == 2
    assert "config.yaml cannot be written, for something else is in its place" in done.err


def test_several_labels_and_other_bands(tnet: CommandLine, tmp_path: Path) -> None:
    import tifffile

    lines = ["path;class;mpp;set"]
    for i in range(16):
        pixels = np.random.default_rng(i).integers(500, 1500, (4, 40, 40)).astype(np.uint16)
        pixels[i % 4] += 2000
        file = tmp_path / f"{i}.tif"
        tifffile.imwrite(file, pixels, photometric="minisblack", planarconfig="separate")
        labels = "|".join(name for name, on in (("a", i % 2), ("b", i % 4 > 1)) if on)
        lines.append(f"{i}.tif;{labels};0.5;{'val' if i > 11 else 'train'}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    run = tmp_path / "run"
    told = options(epochs=1, separator="|", class_weights="balanced", finest_mpp=0.8)
    done = tnet("train", tmp_path / "t.csv", "--out", run, "--json", *told)
    assert done.code == 0, done.err
    model = load(run / "model.safetensors")
    assert model.multilabel
    assert (model.expects.bands, model.expects.dtype, model.expects.mpp) == (4, "uint16", 0.5)
    assert 900 < model.expects.mean[0] < 2000
    assert model.plan.until == 0.8
    assert json.loads(done.out)["images"]["val"] == {"a": 2, "b": 2}
    assert {row["label"] for row in rows(run / "splits.csv")} == {"", "a", "b", "a|b"}


def test_an_image_that_breaks_is_named_and_left_out(
    tnet: CommandLine, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Any, **more: Any) -> Any:
        if path.name == "4.png":
            raise OSError("the disk has gone")
        return open_pyramid(path, **more)

    monkeypatch.setattr("tnet.datasets.loading.open_pyramid", failing)
    run = tmp_path / "run"
    done = tnet("train", data, "--out", run, "--json", *options())
    assert done.code == 0, done.err
    assert json.loads(done.out)["unreadable"] == 2
    assert done.err.count("left out from now on: row 6") == 1
    assert [row["row"] for row in rows(run / "unreadable.csv")] == ["23", "6"]
    assert "the disk has gone" in (run / "log.txt").read_text()


def test_a_full_disk_is_told_and_the_last_checkpoint_stays(
    tnet: CommandLine, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    import lightning

    kept, saved = lightning.Trainer.save_checkpoint, []

    def full(self: Any, path: Any, **more: Any) -> None:
        saved.append(path)
        if len(saved) > 1:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        kept(self, path, **more)

    monkeypatch.setattr(lightning.Trainer, "save_checkpoint", full)
    run = tmp_path / "run"
    done = tnet("train", data, "--out", run, *options())
    assert done.code == 6
    assert "last.ckpt cannot be written (No space left on device)" in done.err
    assert not list(run.rglob("*.partial"))
    monkeypatch.undo()
    assert tnet("train", data, "--out", run, *options()).code == 0


def test_weights_that_are_no_numbers_end_the_training(
    tnet: CommandLine, data: Path, tmp_path: Path
) -> None:
    told = options(lr=1e30, head_lr=1e30, clip=0)
    done = tnet("train", data, "--out", tmp_path / "run", *told)
    assert done.code == 3
    assert "went astray in epoch 1" in done.err
    assert "--set lr=" in done.err


def test_a_training_without_progress_ends_early(
    tnet: CommandLine, data: Path, tmp_path: Path
) -> None:
    told = options(epochs=9, lr=0, head_lr=0, patience=2, augment="none", ema=0)
    done = tnet("train", data, "--out", tmp_path / "run", "--json", *told)
    assert done.code == 0, done.err
    assert json.loads(done.out)["epochs"] == 3
    assert "no progress for 2 epochs" in done.err
    # Which of two equal epochs is kept is told with what decided.
    assert done.err.count(" (a tie with epoch 1, cross-entropy ") == 2


def test_the_keys_can_be_listed(tnet: CommandLine) -> None:
    done = tnet("train", "--help-config")
    assert done.code == 0
    assert "learning rate of the backbone" in done.out
