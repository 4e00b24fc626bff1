"""ResNets with RFAConv: counts, maps, any size and bands, training on one view, names."""

from typing import Any

import pytest
import timm
import torch
from backbone_checks import (
    compiles,
    exports_with_any_batch,
    gives_map_and_feature,
    ignores_memory_format,
    infers_in_bfloat16,
    is_one_graph,
    trains_every_weight,
    works_in_bfloat16,
)
from golden_soft import read_json, recipe_state
from shared_data import shared_folder
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tnet.backbones.generic import TimmBackbone, timm_names
from tnet.backbones.receptive import ReceptiveConv
from tnet.backbones.rfaconv import CONVOLUTIONS, default_cfgs, from_official, rename
from tnet.errors import DataError, UsageError

# Parameters and billions of multiplications of the released code, counted by running it; it has
# no ResNet-50 of its own.
COUNTED = {
    "rfaconv_resnet18": (11_850_408, 1.874),
    "rfaconv_resnet34": (22_160_872, 3.780),
    "rfcbamconv_resnet18": (11_884_408, 1.869),
    "rfcbamconv_resnet34": (22_237_704, 3.771),
    "rfcaconv_resnet18": (11_887_936, 1.871),
    "rfcaconv_resnet34": (22_242_456, 3.774),
}
SMALLEST = [f"{kind}_resnet18" for kind in CONVOLUTIONS]


def create(name: str, **options: Any) -> Any:
    return timm.create_model(name, **options)


def small(name: str = "rfaconv_resnet18", **options: Any) -> Any:
    """Return a network with all parts of a variant and few weights."""
    torch.manual_seed(0)
    return create(name, **{"num_classes": 5, "channels": (8, 16, 24, 32), **options})


def multiplications(network: nn.Module, *size: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.empty(size, device="meta"))
    return counter.get_total_flops() / 2


def test_the_variants_are_registered() -> None:
    assert len(default_cfgs) == 9
    assert set(default_cfgs) <= set(timm_names())


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("name", COUNTED)
def test_parameters_and_multiplications(name: str, literal: bool) -> None:
    with torch.device("meta"):
        network = create(name, literal=literal)
    parameters, billions = COUNTED[name]
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert round(multiplications(network, 1, 3, 224, 224) / 1e9, 3) == billions


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_resnet50_has_it_in_every_bottleneck(kind: str) -> None:
    """Beside a plain ResNet-50, whose 3x3 has 9 C², each adds what its formula says."""
    with torch.device("meta"):
        network = create(f"{kind}_resnet50")
        plain = create("resnet50")
    blocks = [b for n in (1, 2, 3, 4) for b in network.get_submodule(f"layer{n}")]
    assert len(blocks) == 16
    added = 0
    for block in blocks:
        assert isinstance(block.conv2, CONVOLUTIONS[kind])
        assert block.conv2.stride == block.stride
        c = block.conv2.generate.in_channels
        hidden = max(8, c // 32)
        added += 99 * c + c
        added += {
            "rfaconv": 9 * c,
            "rfcbamconv": 18 + 32 * c,
            "rfcaconv": 3 * c * hidden + 3 * hidden + 2 * c,
        }[kind]
    ours, theirs = (sum(p.numel() for p in net.parameters()) for net in (network, plain))
    assert ours == theirs + added
    assert theirs == 25_557_032


@pytest.mark.parametrize("name", ["rfaconv_resnet18", "rfcaconv_resnet50"])
def test_maps_and_head(name: str) -> None:
    with torch.device("meta"):
        features = create(name, features_only=True, in_chans=4)
        maps = features(torch.empty(1, 4, 70, 100))
    assert features.feature_info.reduction() == [2, 4, 8, 16, 32]
    assert [m.shape[1] for m in maps] == features.feature_info.channels()
    assert [m.shape[2:] for m in maps] == [(35, 50), (18, 25), (9, 13), (5, 7), (3, 4)]
    network = small().eval()
    network.reset_classifier(7)
    assert network(torch.randn(1, 3, 40, 40)).shape == (1, 7)


@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize(("size", "side"), [((64, 96), (4, 6)), ((33, 50), (3, 4))])
def test_a_backbone_of_any_size_and_bands(
    name: str, size: tuple[int, int], side: tuple[int, int]
) -> None:
    backbone = TimmBackbone(name, bands=4, drop_path=0.1)
    gives_map_and_feature(backbone, torch.randn(1, 4, *size), 256, side)
    assert backbone.features == 512


@pytest.mark.parametrize("literal", [False, True])
def test_group_norms_in_the_place_of_batch_norms(literal: bool) -> None:
    backbone = TimmBackbone("rfcaconv_resnet18", norm="group").train()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    for module in backbone.modules():
        if isinstance(module, ReceptiveConv):
            module.literal = literal
    trained = backbone(view := torch.randn(1, 3, 40, 40))[1]
    assert torch.equal(backbone.eval()(view)[1], trained)


@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize("side", [32, 64])
def test_training_on_one_view(name: str, side: int) -> None:
    """At 32 pixels the last map is one pixel, of which a batch norm can learn nothing."""
    network = small(name, drop_path_rate=0.2)
    trains_every_weight(network, torch.randn(1, 3, side, side))
    norms = network.layer1[0].conv1.norm, network.layer4[0].conv1.norm
    assert [bool((norm.running_mean == 0).all()) for norm in norms] == [False, side == 32]


@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_autocast(name: str, training: bool) -> None:
    # One batch norm of two values after the other makes of a rounding what it likes.
    atol = 0.5 if training else 0.05
    works_in_bfloat16(small(name).train(training), torch.randn(2, 3, 64, 64), atol)


@pytest.mark.parametrize("name", SMALLEST)
def test_bfloat16_inference(name: str) -> None:
    """Without gradients the weights multiply in place, into numbers of less precision."""
    infers_in_bfloat16(small(name), torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize("name", SMALLEST)
def test_memory_format_and_precision_change_nothing(name: str) -> None:
    ignores_memory_format(small(name), torch.randn(2, 3, 64, 64))


def test_one_graph_for_the_compiler() -> None:
    is_one_graph(small().eval(), torch.randn(1, 3, 64, 64))


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", SMALLEST)
def test_a_block_compiled(name: str, training: bool) -> None:
    compiles(small(name).layer2[0].train(training), torch.randn(4, 8, 16, 16))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_a_network_compiled(name: str) -> None:
    compiles(small(name).eval(), torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("name", SMALLEST)
def test_export_with_any_batch(name: str) -> None:
    """Two blocks of a network, one with a stride; the rest of it is timm's."""
    exports_with_any_batch(small(name).layer2, torch.randn(2, 8, 16, 16))


def official_state(tag: str) -> dict[str, Tensor]:
    file = shared_folder("golden", "soft", "rfaconv", "rfa_state_dict_keys.json")
    keys = read_json(file)[tag]["keys"]
    return recipe_state({key: shape for key, (shape, _) in keys.items()})


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("RFAresnet18", "rfaconv_resnet18"),
        ("RFCBAMresnet18", "rfcbamconv_resnet18"),
        ("RFCAresnet18", "rfcaconv_resnet18"),
    ],
)
def test_an_official_checkpoint_fits(tag: str, name: str) -> None:
    state = official_state(tag)
    parallel = {f"module.{key}": value for key, value in state.items()}
    network = create(name)
    network.load_state_dict(from_official({"epoch": 99, "model_state_dict": parallel}))
    gather = network.layer3[1].conv1.gather.weight
    assert torch.equal(gather, state["layer3.1.conv1.conv.0.weight"])
    assert torch.equal(network.conv1.weight, state["conv1.weight"])
    assert from_official(state).keys() == from_official(parallel).keys()


def test_a_plain_resnet_is_not_taken_for_one_of_these() -> None:
    with torch.device("meta"):
        state = create("resnet18").state_dict()
    with pytest.raises(DataError, match="no receptive-field attention"):
        from_official(state)


def test_foreign_names_are_left_for_the_loader_to_refuse() -> None:
    for key in ("block1.0.attn.proj_1.weight", "layer1.0.conv2.weight", "conv1.weight", "bn1.bias"):
        assert rename(key) == key


def test_what_cannot_be_had_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="convert an official checkpoint"):
        create("rfaconv_resnet18", pretrained=True)
    with pytest.raises(UsageError, match="output_stride at 32"):
        small(output_stride=8)


def test_initial_weights() -> None:
    """He et al.'s over the outputs without regard to groups, also inside; norms begin at 1."""
    block = create("rfaconv_resnet18").layer2[1]
    for conv, fan_out in (
        (block.conv1.generate, 9 * 9 * 128),
        (block.conv1.weigh, 9 * 128),
        (block.conv1.gather, 9 * 128),
        (block.conv2, 9 * 128),
    ):
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    assert (block.bn2.weight == 1).all()
