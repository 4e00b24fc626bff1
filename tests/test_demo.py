"""`tnet demo` as a stranger runs it, and the labelled images that its model learned from."""

import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tnet.bundle import load, shipped
from tnet.datasets.fingerprint import fingerprint
from tnet.datasets.loading import Images, batches
from tnet.datasets.manifest import read_manifest
from tnet.datasets.synthetic import CLASSES, make_dataset
from tnet.model import Input
from tnet.record import Walk


def test_one_slide_is_made_walked_and_drawn(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "tnet.scripts.main", "demo", str(tmp_path)]
    done = subprocess.run(
        [*command, "--slides", "1", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        timeout=180,
    )
    (row,) = json.loads(done.stdout)["slides"]
    assert row["right"] is True
    assert row["gigapixels"] > 1
    assert row["share"] < 0.01
    assert row["glimpses"] > 10
    walk = Walk.from_json((tmp_path / "walks" / f"{row['slide']}.json").read_text("utf-8"))
    assert walk.label == row["said"]
    with Image.open(row["picture"]) as picture:
        assert min(picture.size) > 400


def test_the_shipped_model_is_small_and_says_how_it_was_made() -> None:
    path = shipped()["demo"]
    assert path.stat().st_size < 5e6
    model = load("demo")
    assert model.classes == CLASSES
    assert "train_demo" in model.training_record["command"]
    assert len(model.training_record["data"]) == 64
    assert model.expects.mpp == 0.25
    assert model.name == "demo"


def test_the_fingerprint_is_of_names_and_contents(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "x").write_bytes(b"123")
    first = fingerprint(tmp_path / "a")
    assert first == fingerprint(tmp_path / "b")
    (tmp_path / "b" / "deep" / "x").write_bytes(b"124")
    assert fingerprint(tmp_path / "b") != first
    (tmp_path / "a" / "deep" / "x").rename(tmp_path / "a" / "deep" / "y")
    assert fingerprint(tmp_path / "a") != first


def test_slides_are_samples_with_a_seed_each(tmp_path: Path) -> None:
    slides = make_dataset(tmp_path, 3, seed=5, size=4096, workers=1)
    manifest = read_manifest(tmp_path / "labels.csv", classes=CLASSES)
    assert [entry.labels[0] for entry in manifest.entries] == [slide.label for slide in slides]
    images = Images(manifest.entries, manifest, seed=7, expects=Input(mpp=0.25))
    samples = [sample for batch in batches(images, 2) for sample in batch]
    labels = [CLASSES.index(slide.label) for slide in slides]
    assert [sample.label for sample in samples] == labels
    assert len({sample.seed for sample in samples}) == 3
    assert samples[0].pyramid.width == 4096
