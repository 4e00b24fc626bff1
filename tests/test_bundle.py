"""The model file: what goes in comes out, and nothing in it can do harm."""

import contextlib
import hashlib
import json
import math
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import fake_model, noise
from safetensors.torch import save_file
from torch import nn

from tnet.adapters.array import open_array
from tnet.bundle import FORMAT, load, read_header, save, shipped
from tnet.errors import ModelFileError, TNetError, UsageError
from tnet.model import Input, TNet
from tnet.plan import Plan, Step
from tnet.recipes import build
from tnet.task import Training
from tnet.traversal import walk

PLAN = Plan(view=(48, 40), steps=(Step(3, 3, 0.5, 2), Step(2, 2, 0.5, 1)), background=0.02)
CLASSES = ["naïve", "腫瘍", "a\U0001f600"]


def small_model(**options: Any) -> TNet:
    torch.manual_seed(3)
    options = {"classes": CLASSES, "backbone": "test_resnet", "bands": 2} | options
    model = build("default", **options)
    model.plan = PLAN
    model.expect(Input(bands=2, dtype="uint16", mean=(1.0, 2.0), std=(3.0, 4.0), mpp=0.25))
    return model.eval()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(small_model(), tmp_path_factory.mktemp("model") / "m.safetensors")


def split(file: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The whole header of a safetensors file, our part of it, and the weights' bytes."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    whole = json.loads(data[8 : 8 + length])
    return whole, json.loads(whole["__metadata__"]["tnet"]), data[8 + length :]


def rewritten(file: Path, to: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The file with another header of ours, written without the code under test."""
    whole, ours, weights = split(file)
    ours = change(ours) or ours
    text = ours if isinstance(ours, str) else json.dumps(ours)
    whole["__metadata__"]["tnet"] = text
    head = json.dumps(whole).encode()
    to.write_bytes(struct.pack("<Q", len(head)) + head + weights)
    return to


def refused(path: Path, match: str = ".") -> None:
    with pytest.raises(ModelFileError, match=match) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_calibration_is_kept_and_checked(tmp_path: Path) -> None:
    model = small_model()
    assert "calibration" not in read_header(save(model, tmp_path / "m.safetensors"))
    model.calibration = 1.75
    path = save(model, tmp_path / "n.safetensors")
    assert load(path).calibration == 1.75
    for bad in (0, -1, "hot", None):

        def changed(ours: dict[str, Any], bad: Any = bad) -> dict[str, Any]:
            return ours | {"calibration": bad}

        damaged = rewritten(path, tmp_path / "x.safetensors", changed)
        with pytest.raises(ModelFileError, match=r"calibration|damaged"):
            load(damaged)


def test_a_saved_model_walks_the_same_walk(tmp_path: Path) -> None:
    model = small_model()
    record = {"data": "sha256:ab", "seed": 3, "scores": [0.5]}
    path = save(model, tmp_path / "m.safetensors", training=record)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    again = load(path)
    assert not again.training
    assert again.classes == tuple(CLASSES)
    assert again.plan == PLAN
    assert again.expects == model.expects
    assert again.training_record == record
    assert again.recipe == model.recipe
    assert Training(load(path)).model.sha256 == ""
    pictures = [
        open_array((noise(90, 70, 2, seed=i).astype(np.uint16) * 3), name=str(i)) for i in range(2)
    ]
    before = walk(model, pictures, policy="categorical", seed=1)
    after = walk(again, pictures, policy="categorical", seed=1)
    for a, b in zip(before, after, strict=True):
        assert b.made["model_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert replace(a, seconds=0.0, model="m", made={}) == replace(b, seconds=0.0, made={})
    # What was loaded can be saved again, its record of training included.
    second = save(again, tmp_path / "n.safetensors")
    assert read_header(second) == read_header(path)


@pytest.mark.parametrize("recipe", ["official_fmow", "official_cub"])
def test_the_released_recipes_survive(tmp_path: Path, recipe: str) -> None:
    model = build(recipe, classes=["a", "b"], width=0.25)
    path = save(model, tmp_path / "m.safetensors")
    again = load(path)
    assert again.plan == model.plan
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)


def test_half_precision_halves_the_file(tmp_path: Path) -> None:
    model = small_model()
    whole = save(model, tmp_path / "a.safetensors")
    half = save(model, tmp_path / "b.safetensors", dtype=torch.float16)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    weight = load(half).classifier.linear.weight
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, model.classifier.linear.weight, rtol=1e-3, atol=1e-4)


def test_weights_that_half_precision_cannot_hold_are_not_saved(tmp_path: Path) -> None:
    model = small_model()
    with torch.no_grad():
        model.classifier.linear.bias[0] = 1e6
    with pytest.raises(UsageError, match="float16"):
        save(model, tmp_path / "m.safetensors", dtype=torch.float16)
    with torch.no_grad():
        model.classifier.linear.bias[0] = math.nan
    with pytest.raises(UsageError, match="NaN"):
        save(model, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_header_is_read_without_the_weights(model_file: Path, tmp_path: Path) -> None:
    header = read_header(model_file)
    assert header["format"] == FORMAT
    assert header["recipe"] == "default"
    assert header["classes"] == CLASSES
    assert header["expects"]["mpp"] == 0.25
    assert header == split(model_file)[1]


def test_only_the_right_ending(tmp_path: Path) -> None:
    for name in ("m.pt", "m", "m.safetensors.bak"):
        with pytest.raises(UsageError, match=r"ends in \.safetensors"):
            save(small_model(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_no_recipe_built_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="built by a recipe"):
        save(fake_model(PLAN), tmp_path / "m.safetensors")


@pytest.mark.parametrize("record", [{"loss": math.nan}, {"folder": Path("x")}], ids=["nan", "path"])
def test_a_record_that_is_no_json_is_refused(tmp_path: Path, record: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="JSON"):
        save(small_model(), tmp_path / "m.safetensors", training=record)
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TNetError, match=r"m\.safetensors: cannot be written"):
        save(small_model(), tmp_path / "missing" / "m.safetensors")
    (tmp_path / "file").touch()
    with pytest.raises(TNetError, match=r"m\.safetensors: cannot be written"):
        save(small_model(), tmp_path / "file" / "m.safetensors")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(TNetError, match="No space left"):
        save(small_model(), tmp_path / "m.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_truncated_files(model_file: Path, tmp_path: Path) -> None:
    data = model_file.read_bytes()
    rng = random.Random(0)
    path = tmp_path / "cut.safetensors"
    for length in [0, 1, 7, 8, 9, *(rng.randrange(len(data)) for _ in range(20)), len(data) - 1]:
        path.write_bytes(data[:length])
        refused(path)


def test_flipped_bytes_load_or_are_refused(model_file: Path, tmp_path: Path) -> None:
    data = model_file.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    rng = random.Random(1)
    path = tmp_path / "flipped.safetensors"
    loaded = 0
    for i in range(200):
        changed = bytearray(data)
        place = rng.randrange(header if i % 2 else len(data))
        changed[place] ^= rng.randrange(1, 256)
        path.write_bytes(changed)
        try:
            load(path)
            loaded += 1
        except ModelFileError:
            pass
    assert 50 < loaded < 150


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.file),))


def test_nothing_is_ever_executed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    old, new, plain = (tmp_path / f"{name}.pt" for name in ("old", "new", "plain"))
    torch.save({"weights": Canary(canary)}, old, _use_new_zipfile_serialization=False)
    torch.save({"weights": Canary(canary)}, new)
    plain.write_bytes(pickle.dumps(Canary(canary)))
    for path in (old, new, plain):
        refused(path, "pickled PyTorch file")
        renamed = path.with_suffix(".safetensors")
        path.rename(renamed)
        refused(renamed, "pickled PyTorch file")
    assert not canary.exists()


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    refused(path)
    path.write_text("weights " * 1000)
    refused(path, "not a TNet model")
    path.write_bytes(b"")
    refused(path, "truncated")
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    refused(path)
    save_file({"weight": torch.zeros(3)}, path)
    refused(path, "has no 'tnet'")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    refused(tmp_path / "none.safetensors", "no such model file")
    refused(tmp_path, "is a folder")
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_header(tmp_path)
    assert all(path.is_file() for path in shipped().values())


def change(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def apply(header: dict[str, Any]) -> None:
        inner = header
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = to

    return apply


ONE_BAND = {"bands": 1, "dtype": "uint8", "mean": [0], "std": [1], "mpp": None}
ENDLESS = {"rows": 10**9, "columns": 9, "patch": 0.5, "glimpses": 1}

HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "later format": change("format", to=FORMAT + 1),
    "format zero": change("format", to=0),
    "format inf": change("format", to=math.inf),
    "format text": change("format", to="new"),
    "unknown recipe": change("recipe", to="magic"),
    "recipe list": change("recipe", to=["default"]),
    "unknown option": change("options", "eval", to="1+1"),
    "option recipe": change("options", "recipe", to="default"),
    "options list": change("options", to=[1]),
    "options none": change("options", to=None),
    "hub": change("options", "backbone", to="hf-hub:x/y"),
    "hub under": change("options", "backbone", to="hf_hub:x/y"),
    "local": change("options", "backbone", to="local-dir:/etc"),
    "path": change("options", "backbone", to="../x"),
    "backbone number": change("options", "backbone", to=3),
    "backbone list": change("options", "backbone", to=["resnet18"]),
    "other backbone": change("options", "backbone", to="test_convnext"),
    "huge backbone": change("options", "backbone", to="vit_7b_patch16_dinov3"),
    "huge bands": change("options", "bands", to=10**9),
    "bands text": change("options", "bands", to="3"),
    "bands float": change("options", "bands", to=2.5),
    "negative bands": change("options", "bands", to=-1),
    "stride none": change("options", "stride", to=None),
    "stride zero": change("options", "stride", to=0),
    "dropout text": change("options", "dropout", to="lots"),
    "dropout list": change("options", "dropout", to=[0.1]),
    "dropout 2": change("options", "dropout", to=2),
    "dropout nan": change("options", "dropout", to=math.nan),
    "dropout huge": change("options", "dropout", to=10**400),
    "aggregate": change("options", "aggregate", to={"a": 1}),
    "no classes": change("options", "classes", to=[]),
    "classes none": change("options", "classes", to=None),
    "classes number": change("classes", to=7),
    "too few classes": change("classes", to=CLASSES[:2]),
    "two alike": change("classes", to=["a", "a", "b"]),
    "more classes": change("options", "classes", to=[*CLASSES, "d"]),
    "plan rows": change("plan", "steps", to=[ENDLESS]),
    "plan view": change("plan", "view", to=[10**9, 10**9]),
    "plan text": change("plan", to="far"),
    "plan none": change("plan", to=None),
    "bands differ": change("expects", to=ONE_BAND),
    "dtype": change("expects", "dtype", to="object"),
    "dtype unknown": change("expects", "dtype", to="uint7"),
    "mean nan": change("expects", "mean", to=[math.nan, 0]),
    "mean huge": change("expects", "mean", to=[10**400, 0]),
    "std zero": change("expects", "std", to=[0, 1]),
    "std nan": change("expects", "std", to=[math.nan, 1]),
    "std none": change("expects", "std", to=None),
    "mpp": change("expects", "mpp", to="small"),
    "mpp negative": change("expects", "mpp", to=-1.0),
    "expects": change("expects", to=[]),
    "training": change("training", to=3),
    "not json": lambda _: "{",
    "a list": lambda _: "[1, 2]",
    "a number": lambda _: "17",
    "null": lambda _: "null",
    "deep": lambda _: "[" * 100_000,
    "nothing": lambda _: "{}",
    "format only": lambda _: json.dumps({"format": FORMAT}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers(name: str, model_file: Path, tmp_path: Path) -> None:
    refused(rewritten(model_file, tmp_path / "m.safetensors", HOSTILE[name]))


@pytest.mark.parametrize("option", [{"width": 1e6}, {"depth": 1e6}, {"width": -1}, {"depth": "b"}])
def test_hostile_sizes(option: dict[str, Any], tmp_path: Path) -> None:
    file = save(build("official_fmow", classes=["a"], width=0.25), tmp_path / "a.safetensors")

    def grow(header: dict[str, Any]) -> None:
        header["options"] |= option

    refused(rewritten(file, tmp_path / "m.safetensors", grow))


def test_a_later_format_says_how_to_read_it(model_file: Path, tmp_path: Path) -> None:
    file = rewritten(model_file, tmp_path / "m.safetensors", change("format", to=99))
    refused(file, r"model format 99 .* pip install -U tnet")


def test_weights_that_do_not_fit(model_file: Path, tmp_path: Path) -> None:
    text = json.dumps(split(model_file)[1])
    good = small_model().state_dict()
    path = tmp_path / "m.safetensors"
    name = "classifier.linear.weight"

    def write(**tensors: Any) -> None:
        state = {k: v for k, v in (good | tensors).items() if v is not None}
        save_file(state, path, metadata={"tnet": text})

    write()
    load(path)
    write(**{name: good[name][:, :-1].contiguous()})
    refused(path, name)
    write(**{name: None})
    refused(path, name)
    write(extra=torch.zeros(1))
    refused(path, "extra")
    for bad in (math.nan, math.inf):
        write(**{name: good[name] * bad})
        refused(path, "NaN or infinity")
    write(**{name: good[name].to(torch.int32)})
    refused(path, name)
    write(**{name: good[name].double()})
    load(path)


def test_a_partial_file_of_a_crash_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(small_model(), tmp_path / "m.safetensors")
    before = path.read_bytes()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    model = small_model()
    nn.init.zeros_(model.classifier.linear.weight)
    with contextlib.suppress(KeyboardInterrupt):
        save(model, path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    assert path.read_bytes() == before
