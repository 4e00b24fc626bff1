"""The golden numbers of RFAConv: which of our parts each belongs to."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import timm
import torch
from golden_soft import (
    EXACT,
    assert_near,
    check_module,
    load,
    names,
    read,
    read_json,
    recipe_state,
)
from torch import Tensor, nn

from tnet.backbones.receptive import RFAConv, RFCAConv, RFCBAMConv, UnfoldRFAConv
from tnet.backbones.rfaconv import ReceptiveBasicBlock, from_official, rename, rename_part
from tnet.errors import DataError

MODULES = "rfaconv_modules.safetensors"
LOGITS = "rfa_resnets_recipe_outputs.safetensors"

# The released name of a network, and ours.
NETWORKS = {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "RFAresnet18": "rfaconv_resnet18",
    "RFAresnet34": "rfaconv_resnet34",
    "RFCBAMresnet18": "rfcbamconv_resnet18",
    "RFCBAMresnet34": "rfcbamconv_resnet34",
    "RFCAresnet18": "rfcaconv_resnet18",
    "RFCAresnet34": "rfcaconv_resnet34",
}


def module(tag: str, make: Callable[[], nn.Module], names: Callable[[str], str]) -> None:
    def check(folder: Path) -> None:
        check_module(folder / MODULES, tag, make(), names)

    CASES[tag] = check


def with_norm(conv: nn.Module) -> nn.Module:
    """Return what the original's detection code builds: a convolution, its norm and ReLU."""
    return nn.Sequential(conv, nn.BatchNorm2d(12), nn.ReLU())


def rename_with_norm(norm: str) -> Callable[[str], str]:
    """Return the renaming for :func:`with_norm`, whose norm bears an official name."""

    def renamed(key: str) -> str:
        place, _, kind = key.rpartition(".")
        return f"1.{kind}" if place == norm else f"0.{rename_part(key)}"

    return renamed


def block() -> nn.Module:
    shortcut = nn.Sequential(nn.Conv2d(8, 16, 1, stride=2, bias=False), nn.BatchNorm2d(16))
    return ReceptiveBasicBlock(8, 16, 2, shortcut, convolution=RFAConv)


def within_block(key: str) -> str:
    return rename(f"layer1.0.{key}").removeprefix("layer1.0.")


def network(tag: str, folder: Path) -> None:
    """Hold a network to its list of keys, its count, and its logits if the folder has them."""
    stated = read_json(folder / "rfa_state_dict_keys.json")[tag]
    shapes = {key: shape for key, (shape, _) in stated["keys"].items()}
    with torch.device("meta"):
        ours = timm.create_model(NETWORKS[tag])
    found = {key: list(value.shape) for key, value in ours.state_dict().items()}
    assert {rename(key): list(shape) for key, shape in shapes.items()} == found
    assert sum(p.numel() for p in ours.parameters()) == stated["params"]
    if f"{tag}/out/logits_f64" not in names(folder / LOGITS):
        return
    ours = timm.create_model(NETWORKS[tag]).eval()
    load(ours, official(tag, folder), rename)
    with torch.inference_mode():
        logits = ours(read(folder / LOGITS)["in/64"].double())
    assert_near(logits, read(folder / LOGITS)[f"{tag}/out/logits_f64"], EXACT, f"logits of {tag}")


def official(tag: str, folder: Path) -> dict[str, Tensor]:
    """Return the state that the logits were made with, with official names."""
    keys = read_json(folder / "rfa_state_dict_keys.json")[tag]["keys"]
    state = recipe_state({key: shape for key, (shape, _) in keys.items()})
    return state | read(folder / LOGITS, f"{tag}/bn/")


def plain(folder: Path) -> None:
    """Hold that the released RFAresnet50 is a plain ResNet-50, and not taken for one of ours."""
    stated = read_json(folder / "rfa_state_dict_keys.json")["RFAresnet50"]
    with torch.device("meta"):
        resnet50 = timm.create_model("resnet50")
        state = {f"module.{key}": torch.empty(s) for key, (s, _) in stated["keys"].items()}
    found = {key: list(value.shape) for key, value in resnet50.state_dict().items()}
    assert {key: shape for key, (shape, _) in stated["keys"].items()} == found
    assert sum(p.numel() for p in resnet50.parameters()) == stated["params"]
    try:
        from_official(state)
    except DataError as error:
        assert "plain ResNet-50" in str(error)  # noqa: PT017
    else:
        raise AssertionError("a plain ResNet-50 was taken for one with RFAConv")


CASES: dict[str, Callable[[Path], None]] = {tag: partial(network, tag) for tag in NETWORKS}
CASES["RFAresnet50"] = plain
module("rfaconv_cls_s1", lambda: RFAConv(8, 12), rename_part)
module("rfaconv_cls_s2", lambda: RFAConv(8, 12, stride=2), rename_part)
module("rfaconv_cls_k5", lambda: RFAConv(4, 6, 5), rename_part)
module("rfcbamconv_cls_s1", lambda: RFCBAMConv(8, 12), rename_part)
module("rfcbamconv_cls_s2", lambda: RFCBAMConv(8, 12, stride=2), rename_part)
module("rfcaconv_cls_s1", lambda: RFCAConv(8, 12), rename_part)
module("rfcaconv_cls_s2", lambda: RFCAConv(8, 12, stride=2), rename_part)
NORM = rename_with_norm("conv.1")
module("rfaconv_root_group", lambda: with_norm(RFAConv(8, 12, stride=2)), NORM)
module("rfcbamconv_root", lambda: with_norm(RFCBAMConv(8, 12, stride=2)), NORM)
module("rfaconv_root_unfold", lambda: with_norm(UnfoldRFAConv(8, 12)), rename_with_norm("bn"))
module("basicblock_rfa_s2", block, within_block)
