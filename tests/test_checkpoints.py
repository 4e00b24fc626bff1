"""Official checkpoints, by the full lists of their names and shapes, and as files."""

import json
import pickle
import re
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from command_line import CommandLine, picture, write_png
from golden_soft import read, read_json, recipe_state, recipe_weight
from safetensors.torch import save_file
from shared_data import SHARED, shared_folder
from torch import Tensor

from tnet.bundle import load
from tnet.checkpoints import convert, describe, import_checkpoint, imported_model
from tnet.errors import DataError, UsageError

SOFT = SHARED / "golden" / "soft"
SMALL = "test_resnet"
RFA = {"RFA": "rfaconv", "RFCBAM": "rfcbamconv", "RFCA": "rfcaconv"}


def lists() -> Iterator[tuple[str, str, str]]:
    """Yield (file, the name of a network in it, our name) for every list in the goldens."""
    van, rfa = "van/van_b0_b6_state_dict_keys.json", "rfaconv/rfa_state_dict_keys.json"
    port, mxnet = "aff/aff_pytorch_state_dict_keys.json", "aff/aff_mxnet.json"
    if not SOFT.exists():
        return
    yield from ((van, name, name) for name in read_json(SOFT / van))
    for name in read_json(SOFT / rfa):
        kind, _, depth = name.partition("resnet")
        ours = f"{RFA[kind]}_resnet{depth}" if kind else name
        yield rfa, name, "resnet50" if name == "RFAresnet50" else ours
    for name in read_json(SOFT / port):
        network, _, fuse = name.rpartition("_")
        yield port, name, network if fuse == "DAF" else f"{fuse.lower()}_{network}_port"
    for name in read_json(SOFT / mxnet)["imagenet_full"]:
        if not name.startswith("add_"):
            yield mxnet, name, name


def shapes(file: str, name: str) -> dict[str, Sequence[int]]:
    """Return official name -> shape of one network."""
    content = read_json(shared_folder("golden", "soft", *file.split("/")))
    keys = content.get("imagenet_full", content)[name]["keys"]
    if isinstance(next(iter(keys.values()))[0], list):  # [shape, dtype]
        return {key: value[0] for key, value in keys.items()}
    return dict(keys)


def weightless(official: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return tensors that have only shapes; the counters of batch norms have values."""
    return {
        key: recipe_weight(key, shape)
        if key.endswith("num_batches_tracked")
        else torch.empty(tuple(shape), device="meta")
        for key, shape in official.items()
    }


@pytest.fixture(scope="module")
def van_b0() -> dict[str, Tensor]:
    return recipe_state(shapes("van/van_b0_b6_state_dict_keys.json", "van_b0"))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A file of a small timm network with 4 bands and 7 classes."""
    torch.manual_seed(1)
    network = timm.create_model(SMALL, in_chans=4, num_classes=7)
    path = tmp_path / "small.pth"
    torch.save(network.state_dict(), path)
    return path


def test_the_lists_are_there() -> None:
    shared_folder("golden", "soft")
    assert len(list(lists())) > 25


@pytest.mark.parametrize(("file", "name", "arch"), list(lists()))
def test_every_official_name_and_shape_has_its_place(file: str, name: str, arch: str) -> None:
    official = shapes(file, name)
    state = convert(weightless(official), describe(arch), Path("official.pth"))
    with torch.device("meta"):
        wanted = timm.create_model(arch).state_dict()
    assert state.keys() == wanted.keys()
    assert all(state[key].shape == value.shape for key, value in wanted.items())


def test_van_as_released_gives_its_logits(van_b0: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "van_tiny_754.pth.tar"
    torch.save({"state_dict": van_b0, "arch": "van", "args": Namespace(epochs=310)}, path)
    network = timm.create_model("van_b0").eval().double()
    network.load_state_dict(import_checkpoint(path, "van_b0"))
    golden = read(shared_folder("golden", "soft", "van") / "van_b0_b6_recipe_outputs.safetensors")
    with torch.inference_mode():
        logits = network(golden["in/64"].double())
    torch.testing.assert_close(logits, golden["van_b0/out/logits_f64"], rtol=0, atol=1e-9)


def test_van_as_mmpretrain_names_it(van_b0: dict[str, Tensor], tmp_path: Path) -> None:
    def theirs(key: str) -> str:
        if key.startswith("head."):
            return key.replace("head.", "head.fc.")
        key = re.sub(r"^block(\d)", r"blocks\1", key).replace(".proj.", ".projection.")
        key = key.replace("dwconv.dwconv", "dwconv").replace("conv_spatial", "DW_D_conv")
        return "backbone." + key.replace("conv0", "DW_conv")

    ours, other = tmp_path / "ours.pth", tmp_path / "mmpretrain.pth"
    torch.save(van_b0, ours)
    torch.save({"meta": {}, "state_dict": {theirs(k): v for k, v in van_b0.items()}}, other)
    wanted, got = (import_checkpoint(path, "van_b0") for path in (ours, other))
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)


def test_rfaconv_as_released_gives_its_logits(tmp_path: Path) -> None:
    folder = shared_folder("golden", "soft", "rfaconv")
    golden = read(folder / "rfa_resnets_recipe_outputs.safetensors")
    state = recipe_state(shapes("rfaconv/rfa_state_dict_keys.json", "RFAresnet18"))
    measured = "RFAresnet18/bn/"
    state |= {k.removeprefix(measured): v for k, v in golden.items() if k.startswith(measured)}
    path = tmp_path / "rfa.pth"
    torch.save({"model_state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    network = timm.create_model("rfaconv_resnet18").eval().double()
    network.load_state_dict(import_checkpoint(path, "rfaconv_resnet18"))
    with torch.inference_mode():
        logits = network(golden["in/64"].double())
    wanted = golden["RFAresnet18/out/logits_f64"]
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("holder", ["state_dict", "model_state_dict", "model", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wherever_the_weights_are_held(
    small: Path, tmp_path: Path, holder: str | None, prefix: str
) -> None:
    wanted = torch.load(small, weights_only=True)
    state = {prefix + key: value for key, value in wanted.items()}
    path = tmp_path / "held.pth"
    torch.save({holder: state, "epoch": 3} if holder else state, path)
    got = import_checkpoint(path, SMALL)
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)


def test_safetensors_are_read_too(small: Path, tmp_path: Path) -> None:
    wanted = torch.load(small, weights_only=True)
    path = tmp_path / "small.safetensors"
    save_file(wanted, path)
    assert import_checkpoint(path, SMALL).keys() == wanted.keys()


class Trap:
    """Leaves a folder behind where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.folder,)


def test_nothing_is_executed(tmp_path: Path) -> None:
    folder, path = tmp_path / "caught", tmp_path / "trap.pth"
    torch.save({"state_dict": {"weight": torch.zeros(1)}, "args": Trap(folder)}, path)
    with pytest.raises(DataError, match=r"could run code.*torch\.save\(model\.state_dict\(\)"):
        import_checkpoint(path, SMALL)
    assert not folder.exists()


def test_a_pickled_model_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(DataError, match=r"whole\.pth: holds a pickled model.*state_dict"):
        import_checkpoint(path, SMALL)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "damaged"),
        (b"<html>not found</html>", "damaged"),
        (pickle.dumps([1, 2, 3]), "damaged|no weights by name"),
        (b"\x12\x01" + bytes(40), "MXNet"),
    ],
    ids=["empty", "page", "pickle", "mxnet"],
)
def test_other_files_are_told(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        import_checkpoint(path, SMALL)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(1)], {"state_dict": {"a": 1}}])
def test_a_file_without_weights(tmp_path: Path, content: object) -> None:
    path = tmp_path / "x.pth"
    torch.save(content, path)
    with pytest.raises(DataError, match="no weights by name"):
        import_checkpoint(path, SMALL)


def test_a_truncated_or_missing_file(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes(small.read_bytes()[:5000])
    with pytest.raises(DataError, match="damaged"):
        import_checkpoint(path, SMALL)
    with pytest.raises(DataError, match="cannot be read"):
        import_checkpoint(tmp_path / "none.pth", SMALL)


@pytest.mark.parametrize("arch", ["van_b9", "", "resnet18.nobody", "hf-hub:x/y"])
def test_an_architecture_that_is_not_there(small: Path, arch: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(arch))):
        import_checkpoint(small, arch)


def test_weights_of_another_network(small: Path, van_b0: dict[str, Tensor]) -> None:
    with pytest.raises(DataError, match=r"does not fit 'resnet18': it lacks"):
        import_checkpoint(small, "resnet18")
    place = Path("van.pth")
    with pytest.raises(DataError, match=r"van\.pth: does not fit 'van_b1': it has"):
        convert(van_b0, describe("van_b1"), place)
    bent = van_b0 | {"norm1.bias": torch.zeros(5)}
    with pytest.raises(DataError, match=r"is of the shape \(5,\), not \(32,\)"):
        convert(bent, describe("van_b0"), place)


def test_the_released_rfa_resnet50_is_a_plain_one() -> None:
    state = weightless(shapes("rfaconv/rfa_state_dict_keys.json", "RFAresnet50"))
    with pytest.raises(DataError, match=r"x\.pth: .*plain ResNet-50"):
        convert(state, describe("rfaconv_resnet50"), Path("x.pth"))


@pytest.mark.parametrize("fuse", ["AFF", "iAFF"])
def test_the_port_does_not_fit_the_paper_s_network(fuse: str) -> None:
    state = weightless(shapes("aff/aff_pytorch_state_dict_keys.json", f"resnet50_{fuse}"))
    with pytest.raises(DataError, match=r"x\.pth: .*port"):
        convert(state, describe(f"{fuse.lower()}_resnet50"), Path("x.pth"))


def test_an_imported_model_says_what_the_network_says(small: Path, tmp_path: Path) -> None:
    model = imported_model(small, SMALL)
    about = describe(SMALL)
    assert model.classes == tuple("0123456")
    assert model.plan.view == about.input_size[:0:-1]
    assert model.training_record["sha256"]
    network = timm.create_model(SMALL, in_chans=4, num_classes=7).eval()
    network.load_state_dict(torch.load(small, weights_only=True))
    pixels = torch.randint(0, 256, (2, 4, 96, 96), dtype=torch.uint8)
    mean, std = (sum(values) / 3 for values in (about.mean, about.std))
    with torch.inference_mode():
        wanted = network((pixels / 255 - mean) / std)
        feature_M1D = model.place(model.look(pixels).feature, torch.zeros(2, 3))[:, None]
        got, _, _ = model.classify(feature_M1D, torch.ones(2, 1, dtype=torch.bool))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    again = imported_model(small, SMALL).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items())


def test_a_tag_says_which_pixels(tmp_path: Path) -> None:
    path = tmp_path / "small.pth"
    torch.save(timm.create_model("resnet18", num_classes=3).state_dict(), path)
    model = imported_model(path, "resnet18.fb_swsl_ig1b_ft_in1k")
    assert model.expects.mean == pytest.approx([123.675, 116.28, 103.53])
    assert model.recipe is not None
    assert model.recipe[1]["backbone"] == "resnet18"
    assert describe("van_b4").mean != describe("van_b4.in22k_ft_in1k").mean


def test_without_a_classifier_there_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "bare.pth"
    torch.save(timm.create_model(SMALL, num_classes=0).state_dict(), path)
    assert import_checkpoint(path, SMALL)
    with pytest.raises(DataError, match="has no classifier"):
        imported_model(path, SMALL)


def test_the_command_makes_a_model_that_classifies(
    tnet: CommandLine, van_b0: dict[str, Tensor], tmp_path: Path
) -> None:
    checkpoint, output = tmp_path / "van.pth.tar", tmp_path / "van.safetensors"
    torch.save({"state_dict": van_b0}, checkpoint)
    command = ("models", "import", checkpoint, "--arch", "van_b0", "-o", output)
    done = tnet(*command)
    assert (done.code, done.err) == (0, "")
    assert "van_b0, 3 bands, 1,000 classes, a backbone of 3.8 M parameters" in done.out
    assert json.loads(tnet(*command, "--json").out)["classes"] == 1000
    image = write_png(tmp_path / "a.png", picture(224, 224))
    said = json.loads(tnet("classify", image, "--model", output, "--json").out)["results"][0]
    network = timm.create_model("van_b0").eval()
    network.load_state_dict(import_checkpoint(checkpoint, "van_b0"))
    pixels = torch.from_numpy(picture(224, 224)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        wanted = network(pixels / 127.5 - 1).softmax(1)[0]
    assert said["glimpses"] == 1
    assert said["label"] == str(int(wanted.argmax()))
    assert said["confidence"] == pytest.approx(float(wanted.max()), rel=1e-3)
    walked = tnet("classify", image, "--model", output, "--glimpses", "2,0", "--json")
    assert json.loads(walked.out)["results"][0]["glimpses"] == 3


def test_the_command_takes_names_of_classes(tnet: CommandLine, small: Path, tmp_path: Path) -> None:
    output, names = tmp_path / "small.safetensors", tmp_path / "names.txt"
    names.write_text("a\nb\nc\nd\ne\nf\ng\n")
    command = ("models", "import", small, "--arch", SMALL, "-o", output, "--classes", names)
    assert tnet(*command).code == 0
    assert load(output).classes == tuple("abcdefg")
    names.write_text("a\nb\n")
    assert tnet(*command).err == f"tnet: {small}: has 7 classes, and 2 were named\n"
    names.unlink()
    assert tnet(*command).code == 3


def test_the_command_says_that_a_branch_was_dead(tnet: CommandLine, tmp_path: Path) -> None:
    checkpoint = tmp_path / "iaff.pth"
    torch.save(
        recipe_state(shapes("aff/aff_pytorch_state_dict_keys.json", "resnet18_iAFF")), checkpoint
    )
    done = tnet(
        "models",
        "import",
        checkpoint,
        "--arch",
        "iaff_resnet18_port",
        "-o",
        tmp_path / "iaff.safetensors",
    )
    assert done.code == 0
    assert "never calls the second global context" in done.err
