"""Checkpoints of open-aff: MXNet's, its PyTorch port's, and what is refused."""

import pytest
import timm
import torch
from golden_soft import read_json, recipe_state
from shared_data import shared_folder
from torch import Tensor

from tnet.backbones import aff, aff_port
from tnet.errors import DataError


def official(name: str) -> dict[str, Tensor]:
    """Return the state of one of the authors' networks, of MXNet's or of the port's."""
    folder = shared_folder("golden", "soft", "aff")
    if name in aff.VARIANTS:
        stated = read_json(folder / "aff_mxnet.json")["imagenet_full"][name]["keys"]
        return recipe_state(stated)
    stated = read_json(folder / "aff_pytorch_state_dict_keys.json")[name]["keys"]
    return recipe_state({key: shape for key, (shape, _) in stated.items()})


@pytest.mark.parametrize("name", ["aff_resnet50", "iaff_resnext50_32x4d"])
def test_the_authors_networks_fit(name: str) -> None:
    state = official(name)
    ours = aff.from_official(state)
    with torch.device("meta"):
        network = timm.create_model(name)
    missing, unexpected = network.load_state_dict(ours, strict=False, assign=True)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    names = {"weight": "gamma", "bias": "beta"}
    gluon = {
        ".".join([*k.split(".")[:-1], names.get(k.split(".")[-1], "")]) if v.ndim == 1 else k: v
        for k, v in state.items()
        if not k.endswith(("running_mean", "running_var"))
    }
    again = aff.from_official(gluon)
    assert again.keys() <= ours.keys()
    assert all(ours[key] is value for key, value in again.items())


def test_the_ports_networks_are_others() -> None:
    with pytest.raises(DataError, match=r"PyTorch port, .*such as aff_resnet50_port"):
        aff.from_official(official("resnet50_AFF"))
    with pytest.raises(DataError, match="without '_port'"):
        aff_port.from_official(official("aff_resnet50"))
    with pytest.raises(DataError, match="without '_port'"):
        aff_port.from_official(official("aff_resnext50_32x4d"))


def test_the_ports_dead_branch() -> None:
    state = official("resnet18_iAFF")
    theirs, ours = (
        "layer1.0.fuse_mode.global_att{}.{}.weight",
        "stages.0.0.fusion.attention{}.global_context.squeeze.weight",
    )
    converted = aff_port.from_official(state)
    assert converted[ours.format("")] is state[theirs.format("", 1)]
    assert converted[ours.format("2")] is state[theirs.format("", 1)]
    # Once the branch has been called, in a mended port, its own weights count.
    for layer in (2, 5):
        key = f"layer1.0.fuse_mode.global_att2.{layer}.num_batches_tracked"
        state[key] = torch.tensor(7)
    converted = aff_port.from_official(state)
    assert converted[ours.format("2")] is state[theirs.format("2", 1)]
    other = ours.replace("stages.0.0", "stages.0.1")
    assert converted[other.format("2")] is converted[other.format("")]


def test_foreign_names_are_left_for_the_loader_to_refuse() -> None:
    keys = ("blocks.0.weight", "layer1.0.body.9.weight", "layer1.0.fusion.weight", "layer1.weight")
    state = {key: torch.zeros(1) for key in keys}
    ours = aff.from_official(state)
    assert len(ours) == len(state)
    assert aff_port.from_official(state).keys() == ours.keys()
    lonely = {"layer1.0.fuse_mode.global_att2.1.weight": torch.zeros(1)}
    assert len(aff_port.from_official(lonely)) == 1
    with torch.device("meta"):
        network = timm.create_model("aff_resnet50")
    vgg = {f"features.{i}.weight": torch.zeros(1) for i in range(29)}
    for other in (ours, aff.from_official(vgg)):
        assert not other.keys() <= network.state_dict().keys()
