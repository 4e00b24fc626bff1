"""VAN: counts, maps, any size and number of bands, training on one view, foreign names."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from backbone_checks import (
    compiles,
    exports_with_any_batch,
    gives_map_and_feature,
    ignores_memory_format,
    is_one_graph,
    trains_every_weight,
    works_in_bfloat16,
)
from golden_soft import read_json, recipe_state
from shared_data import shared_folder
from torch import Tensor, nn
from torch.nn import functional as F

import tnet.backbones
from tnet import bundle
from tnet.backbones.depthwise import DilatedDepthwise
from tnet.backbones.features import BatchNorm
from tnet.backbones.generic import TimmBackbone, timm_names
from tnet.backbones.large_kernel import LargeKernelAttention
from tnet.backbones.van import VAN, VARIANTS, Block, from_official, rename
from tnet.errors import UsageError
from tnet.recipes import build

# The released code's own, counted by running it.
PARAMETERS = {
    "van_b0": 4_105_800,
    "van_b1": 13_861_800,
    "van_b2": 26_578_472,
    "van_b3": 44_765_608,
    "van_b4": 60_283_176,
    "van_b5": 89_967_688,
    "van_b6": 199_829_416,
}


def made(name: str, **options: Any) -> Any:
    return timm.create_model(name, **options)


def small(**options: Any) -> VAN:
    """Return a network with all of VAN's parts and few weights."""
    torch.manual_seed(0)
    return VAN((8, 16, 24, 32), (1, 2, 1, 1), **{"num_classes": 5, **options})


def mmpretrain(key: str) -> str:
    """Return the name that mmpretrain's converter gives a weight of the released code."""
    if key.startswith("head."):
        return key.replace("head.", "head.fc.")
    if key.startswith("patch_embed"):
        key = key.replace("proj.", "projection.")
    elif key.startswith("block"):
        key = key.replace("block", "blocks").replace("dwconv.dwconv", "dwconv")
        key = key.replace("conv0", "DW_conv").replace("conv_spatial", "DW_D_conv")
    return f"backbone.{key}"


def test_importing_the_package_registers_all() -> None:
    assert "van" in tnet.backbones.__all__
    assert set(PARAMETERS) == set(VARIANTS) <= set(timm_names())


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_maps(name: str) -> None:
    with torch.device("meta"):
        network = made(name)
        features = made(name, features_only=True, in_chans=4)
        maps = features(torch.empty(1, 4, 70, 100))
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]
    assert features.feature_info.reduction() == [4, 8, 16, 32]
    widths = list(VARIANTS[name][0])
    assert features.feature_info.channels() == widths
    sides = [(18, 25), (9, 13), (5, 7), (3, 4)]
    assert [m.shape for m in maps] == [
        (1, c, h, w) for c, (h, w) in zip(widths, sides, strict=True)
    ]
    assert network.num_features == network.head_hidden_size == widths[-1]


def test_no_weights_to_download() -> None:
    with pytest.raises(UsageError, match="convert an official checkpoint"):
        made("van_b0", pretrained=True)


def test_what_timm_says_of_the_input() -> None:
    with torch.device("meta"):
        b0, b4 = made("van_b0"), made("van_b4")
        b6 = made("van_b6")
        large = made("van_b5.in22k_ft_in1k_384")
    assert b0.default_cfg["mean"] == b0.default_cfg["std"] == (0.5, 0.5, 0.5)
    assert b4.default_cfg["mean"] == (0.5, 0.5, 0.5)
    assert b0.default_cfg["crop_pct"] == 0.9
    assert b6.default_cfg["mean"] == (0.485, 0.456, 0.406)
    assert b6.default_cfg["input_size"] == (3, 224, 224)
    assert large.default_cfg["input_size"] == (3, 384, 384)
    for network in (b0, b6, large):
        assert network.get_submodule(network.default_cfg["first_conv"]).in_channels == 3
        assert network.get_submodule(network.default_cfg["classifier"]).out_features == 1000


@pytest.mark.parametrize(("size", "side"), [((64, 96), (4, 6)), ((33, 50), (3, 4))])
def test_a_backbone_of_any_size_and_bands(size: tuple[int, int], side: tuple[int, int]) -> None:
    backbone = TimmBackbone("van_b0", bands=4, drop_path=0.1)
    gives_map_and_feature(backbone, torch.randn(1, 4, *size), 160, side)
    assert backbone.features == 256


def test_a_model_file_with_a_van(tmp_path: Path) -> None:
    model = build("default", classes=("a", "b"), bands=2, backbone="van_b0").eval()
    bundle.save(model, tmp_path / "van.safetensors")
    again = bundle.load(tmp_path / "van.safetensors")
    view = torch.randn(1, 2, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again.backbone(view)[1], model.backbone(view)[1])


def test_head_and_intermediate_maps() -> None:
    network, view = small().eval(), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        final, maps = network.forward_intermediates(view, indices=[1, -1])
        assert [m.shape[1] for m in maps] == [16, 32]
        assert torch.equal(final, maps[1])
        assert torch.equal(network.forward_head(final), network(view))
        pooled = network.forward_head(final, pre_logits=True)
        torch.testing.assert_close(pooled, final.mean(dim=(2, 3)))
        early = network.forward_intermediates(
            view, indices=[0, 1], stop_early=True, intermediates_only=True
        )
        assert isinstance(early, list)
        assert torch.equal(early[1], maps[0])
        network.reset_classifier(0)
        assert torch.equal(network(view), pooled)
        network.reset_classifier(7, "max")
        assert network(view).shape == (2, 7)
    assert network.num_classes == 7
    with pytest.raises(UsageError, match="NCHW"):
        network.forward_intermediates(view, output_fmt="NLC")


def test_stochastic_depth_grows_from_none() -> None:
    """Compare with the rates that the released code computes for B0 at 0.1."""
    with torch.device("meta"):
        network = made("van_b0", drop_path_rate=0.1)
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]
    file = shared_folder("golden", "soft", "van", "van.json")
    assert rates == pytest.approx(read_json(file)["drop_path_rates_b0_rate0p1"], abs=1e-8)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    network = made("van_b0")
    block = network.stages[1].blocks[0]
    assert (block.scale1 == 0.01).all()
    assert (block.scale2 == 0.01).all()
    for conv, fan_out in (
        (block.attention.gate.local, 5 * 5),
        (block.attention.gate.distant, 7 * 7),
        (block.attention.enter, 64),
        (network.stages[1].embed.conv, 9 * 64),
    ):
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
        assert (conv.bias == 0).all()
    assert network.head.fc.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_the_kernel_reaches_21_pixels() -> None:
    """A pixel's attention depends on 10 pixels to each side by the paper's kernel, 11 in fact."""
    attention = LargeKernelAttention(1)
    for parameter in attention.parameters():
        nn.init.ones_(parameter)
    x = torch.ones(1, 1, 31, 31, requires_grad=True)
    attention(x)[0, 0, 15, 15].backward()
    assert x.grad is not None
    seen = x.grad[0, 0, 15].nonzero()
    assert [int(seen.min()), int(seen.max())] == [4, 26]


@pytest.mark.parametrize("side", [32, 64])
def test_training_on_one_view(side: int) -> None:
    """At 32 pixels the last map is one pixel, of which a batch norm can learn nothing."""
    network = small(drop_path_rate=0.2)
    trains_every_weight(network, torch.randn(1, 3, side, side))
    stages: list[Any] = list(network.stages)
    first, last = stages[0].embed.norm, stages[3].embed.norm
    assert not (first.running_mean == 0).all()
    assert bool((last.running_mean == 0).all()) == (side == 32)


def test_the_batch_norm_of_one_value_uses_what_it_has_learned() -> None:
    norm = BatchNorm(2).train()
    norm(torch.randn(4, 2, 3, 3))
    one = torch.randn(1, 2, 1, 1)
    trained = norm(one)
    assert torch.equal(trained, norm.eval()(one))


@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_autocast(training: bool) -> None:
    works_in_bfloat16(small().train(training), torch.randn(2, 3, 64, 64), atol=0.05)


def test_memory_format_and_precision_change_nothing() -> None:
    ignores_memory_format(small(), torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (20, 14)])
@pytest.mark.parametrize("dilation", [1, 3])
def test_a_dilated_convolution_taken_apart_is_the_same(
    size: tuple[int, int], dilation: int
) -> None:
    taken_apart = DilatedDepthwise(6, 5, dilation)
    x = torch.randn(2, 6, *size, requires_grad=True)
    whole = F.conv2d(
        x,
        taken_apart.weight,
        taken_apart.bias,
        padding=taken_apart.padding,
        dilation=dilation,
        groups=6,
    )
    got = taken_apart(x)
    torch.testing.assert_close(got, whole, rtol=0, atol=1e-6)
    weight = torch.randn_like(whole)
    wanted = torch.autograd.grad((whole * weight).sum(), [x, taken_apart.weight])
    gradients = torch.autograd.grad((got * weight).sum(), [x, taken_apart.weight])
    torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-4)


def test_one_graph_for_the_compiler() -> None:
    is_one_graph(small().eval(), torch.randn(1, 3, 64, 64))


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_a_stage_compiled(training: bool) -> None:
    compiles(small().stages[0].train(training), torch.randn(2, 3, 64, 64))


@pytest.mark.slow
def test_a_network_compiled() -> None:
    compiles(small().eval(), torch.randn(1, 3, 64, 64))


def test_export_with_any_batch() -> None:
    exports_with_any_batch(small(), torch.randn(2, 3, 64, 64))


def official_state(name: str) -> dict[str, Tensor]:
    file = shared_folder("golden", "soft", "van", "van_b0_b6_state_dict_keys.json")
    keys = read_json(file)[name]["keys"]
    return recipe_state({key: shape for key, (shape, _) in keys.items()})


def test_an_official_checkpoint_fits() -> None:
    state = official_state("van_b0")
    network = made("van_b0")
    network.load_state_dict(from_official({"epoch": 309, "state_dict": state}))
    assert torch.equal(network.head.fc.weight, state["head.weight"])
    assert torch.equal(network.stages[2].blocks[1].scale2, state["block3.1.layer_scale_2"])
    parallel = {f"module.{key}": value for key, value in state.items()}
    assert from_official(parallel).keys() == from_official(state).keys()


def test_mmpretrains_names_fit() -> None:
    state = official_state("van_b0")
    theirs = {mmpretrain(key): value for key, value in state.items()}
    assert theirs.keys().isdisjoint(state)
    ours = from_official(theirs)
    assert ours.keys() == from_official(state).keys()
    assert all(ours[rename(key)] is value for key, value in state.items())


def test_foreign_names_are_left_for_the_loader_to_refuse() -> None:
    assert rename("layer1.0.conv1.weight") == "layer1.0.conv1.weight"
