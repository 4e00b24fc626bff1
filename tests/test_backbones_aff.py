"""AFF: counts, maps, any size and number of bands, training on one view, foreign names."""

from collections import Counter
from dataclasses import replace
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
from torch import Tensor, nn

from tnet.backbones import aff, aff_port
from tnet.backbones.features import BatchNorm
from tnet.backbones.fused_resnet import AFFResNet, FusedBlock, Layout
from tnet.backbones.fusion import AFF, IAFF, MSCAM, Add, fusion
from tnet.backbones.generic import TimmBackbone, timm_names
from tnet.errors import UsageError

# The authors' own, counted by running their code; those of "iaff" for CIFAR are ours.
PARAMETERS = {
    "aff_resnet50": 30_373_192,
    "iaff_resnet50": 35_170_120,
    "aff_resnext50_32x4d": 29_953_704,
    "iaff_resnext50_32x4d": 34_750_632,
    "aff_resnet32_cifar": 7_897_156,
    "iaff_resnet32_cifar": 8_344_036,
    "aff_resnext38_32x4d_cifar": 7_770_148,
    "iaff_resnext38_32x4d_cifar": 9_192_100,
    "aff_resnext47_32x4d_cifar": 9_605_828,
    "iaff_resnext47_32x4d_cifar": 11_383_268,
    "aff_resnet18_port": 12_400_232,
    "iaff_resnet18_port": 13_110_952,
    "aff_resnet34_port": 23_083_464,
    "iaff_resnet34_port": 24_369_256,
    "aff_resnet50_port": 45_789_864,
    "iaff_resnet50_port": 66_022_696,
    "aff_resnext50_32x4d_port": 45_261_736,
    "iaff_resnext50_32x4d_port": 65_494_568,
}
NARROW = {
    "imagenet": Layout((1, 1, 2, 1), (8, 8, 16, 16), stem_width=16, reduction=4),
    "resnext": Layout((1, 1, 1, 1), (32, 32, 32, 32), stem_width=16, groups=2, reduction=4),
    "port": Layout(
        (1, 1, 1, 1),
        (8, 8, 16, 16),
        stem_width=8,
        stem="plain",
        block="basic",
        reduction=4,
        start=1,
        pooled_shortcut=False,
    ),
    "cifar": Layout(
        (1, 2, 1),
        (8, 8, 16),
        stem_width=8,
        stem="cifar",
        block="preactivation",
        reduction=4,
        start=1,
    ),
}


def small(kind: str = "imagenet", fuse: Any = "iaff", **head: Any) -> AFFResNet:
    """Return a network with all the parts of its kind and few weights, none of them special."""
    torch.manual_seed(0)
    network = AFFResNet(NARROW[kind], fuse, **{"num_classes": 5, **head})
    for module in network.modules():
        if isinstance(module, BatchNorm) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return network


def test_every_variant_is_counted() -> None:
    assert set(PARAMETERS) == {*aff.VARIANTS, *aff_port.VARIANTS} <= set(timm_names())


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_maps(name: str) -> None:
    cifar = name.endswith("_cifar")
    with torch.device("meta"):
        network: Any = timm.create_model(name)
        features: Any = timm.create_model(name, features_only=True, in_chans=4)
        maps = features(torch.empty(1, 4, 70, 100))
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]
    assert features.feature_info.reduction() == ([1, 2, 4] if cifar else [4, 8, 16, 32])
    sides = [(18, 25), (9, 13), (5, 7), (3, 4)]
    if cifar:
        sides = [(70, 100), (35, 50), (18, 25)]
    assert [tuple(m.shape[2:]) for m in maps] == sides
    assert [m.shape[1] for m in maps] == features.feature_info.channels()
    described = network.default_cfg
    assert described["input_size"] == ((3, 32, 32) if cifar else (3, 224, 224))
    assert network.num_classes == described["num_classes"] == (100 if cifar else 1000)
    assert network.get_submodule(described["first_conv"]).in_channels == 3
    assert network.get_submodule(described["classifier"]).out_features == network.num_classes


def test_which_blocks_fuse_by_attention() -> None:
    def fusions(name: str) -> list[Counter[str]]:
        with torch.device("meta"):
            stages: Any = timm.create_model(name).stages
        return [
            Counter(type(b.fusion).__name__ for b in stage if isinstance(b, FusedBlock))
            for stage in stages
        ]

    assert fusions("iaff_resnet50") == [{"Add": 3}, {"Add": 4}, {"IAFF": 6}, {"IAFF": 3}]
    assert fusions("aff_resnet50_port") == [{"AFF": n} for n in (3, 4, 6, 3)]
    assert fusions("aff_resnet32_cifar") == [{"AFF": 5}] * 3


def test_no_weights_to_download() -> None:
    with pytest.raises(UsageError, match="convert an official checkpoint"):
        timm.create_model("aff_resnet50", pretrained=True)


def test_fusions_by_name() -> None:
    assert isinstance(fusion("add", 4), Add)
    assert isinstance(fusion("aff", 4), AFF)
    assert isinstance(fusion("iaff", 4), IAFF)
    with pytest.raises(UsageError, match="'add', 'aff' or 'iaff', got 'concat'"):
        fusion("concat", 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [AFF, IAFF])
def test_what_holds_for_any_fusion(kind: type[AFF]) -> None:
    module = kind(8, 2).eval()
    x, y = torch.randn(2, 2, 8, 5, 6)
    gate = module.gate(x, y)
    assert gate.shape == x.shape
    assert ((gate > 0) & (gate < 1)).all()
    torch.testing.assert_close(module(x, y), module.gain * (gate * x + (1 - gate) * y))
    torch.testing.assert_close(module(x, x), module.gain * x)
    for part in module.modules():
        if isinstance(part, BatchNorm):
            nn.init.zeros_(part.weight)
    # Without any context AFF is the plain sum, and iAFF the mean.
    torch.testing.assert_close(module(x, y), module.gain * (x + y) / 2)


def test_channel_attention_weakens() -> None:
    module = MSCAM(8, 16).eval()
    assert module.local_context.squeeze.out_channels == 1
    x = torch.randn(2, 8, 5, 6)
    assert (module(x).abs() <= x.abs()).all()
    assert (module(x).sign() == x.sign()).all()


def test_every_context_of_the_iterative_fusion_learns() -> None:
    """The port's second global context does not."""
    module = IAFF(8, 2)
    module(*torch.randn(2, 2, 8, 5, 6)).square().sum().backward()
    for name, parameter in module.named_parameters():
        if name.endswith(("norm2.weight", "norm2.bias")):
            assert parameter.grad is not None
            assert (parameter.grad != 0).all(), name


@pytest.mark.parametrize(("size", "side"), [((32, 48), (8, 12)), ((21, 30), (6, 8))])
def test_a_backbone_of_any_size_and_bands(size: tuple[int, int], side: tuple[int, int]) -> None:
    backbone = TimmBackbone("aff_resnet32_cifar", bands=4)
    gives_map_and_feature(backbone, torch.randn(1, 4, *size), 256, side)
    assert backbone.features == 256


@pytest.mark.parametrize("kind", NARROW)
def test_head_and_intermediate_maps(kind: str) -> None:
    network, view = small(kind).eval(), torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        final, maps = network.forward_intermediates(view)
        assert isinstance(final, Tensor)
        for got, info in zip(maps, network.feature_info, strict=True):
            reduction = info["reduction"]
            assert isinstance(reduction, int)
            assert got.shape == (2, info["num_chs"], 64 // reduction, 96 // reduction)
        assert torch.equal(final, maps[-1])
        assert torch.equal(network.forward_head(final), network(view))
        pooled = network.forward_head(final, pre_logits=True)
        torch.testing.assert_close(pooled, final.mean(dim=(2, 3)))
        network.reset_classifier(7)
        assert network(view).shape == (2, 7)


@pytest.mark.parametrize("kind", NARROW)
@pytest.mark.parametrize("fuse", ["add", "aff", "iaff"])
def test_training_on_one_view(kind: str, fuse: str) -> None:
    """The global context always sees one pixel; at 32 pixels the last stages do, too."""
    trains_every_weight(small(kind, fuse), torch.randn(1, 3, 32, 32))


def test_batch_norms_of_one_value_keep_their_statistics() -> None:
    module = AFF(8, 2).train()
    x, y = torch.randn(2, 4, 8, 5, 6)
    module(x, y)
    attention: Any = module.attention
    seen = attention.global_context.norm1.running_mean.clone()
    local = attention.local_context.norm1.running_mean.clone()
    assert (seen != 0).all()
    module(x[:1], y[:1])
    assert torch.equal(attention.global_context.norm1.running_mean, seen)
    assert (attention.local_context.norm1.running_mean != local).all()
    pooled = torch.randn(1, 8, 1, 1)
    trained = attention.global_context(pooled)
    assert torch.equal(trained, attention.global_context.eval()(pooled))


def test_group_norms_in_the_place_of_batch_norms() -> None:
    backbone = TimmBackbone("iaff_resnet32_cifar", norm="group").train()
    views = torch.randn(2, 3, 16, 16)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    with torch.no_grad():
        together = backbone(views)[1]
        torch.testing.assert_close(together[:1], backbone(views[:1])[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", NARROW)
@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_autocast(kind: str, training: bool) -> None:
    # Over four pooled values a batch norm makes much of little, and more so of rounding.
    atol = None if training else 0.1
    works_in_bfloat16(small(kind).train(training), torch.randn(4, 3, 64, 64), atol)


@pytest.mark.parametrize("kind", NARROW)
def test_memory_format_and_precision_change_nothing(kind: str) -> None:
    ignores_memory_format(small(kind), torch.randn(2, 3, 64, 64), atol=1e-5)


@pytest.mark.parametrize("kind", NARROW)
def test_one_graph_for_the_compiler(kind: str) -> None:
    is_one_graph(small(kind).train(kind == "cifar"), torch.randn(1, 3, 32, 32))


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_a_block_compiled(training: bool) -> None:
    layout = replace(NARROW["imagenet"], depths=(1,), widths=(8,), start=1)
    network = AFFResNet(layout, "iaff", num_classes=5).train(training)
    compiles(network, torch.randn(2, 3, 32, 32))


@pytest.mark.slow
def test_a_network_compiled() -> None:
    compiles(small().eval(), torch.randn(1, 3, 64, 64))


def test_export_with_any_batch() -> None:
    exports_with_any_batch(small(), torch.randn(2, 3, 64, 64))


def test_initial_weights() -> None:
    torch.manual_seed(0)
    network: Any = timm.create_model("aff_resnext50_32x4d")
    block = network.stages[2][0]
    # Gaussian of variance 2 / (1 + 1/16) over the mean of fan-in and fan-out (MSRAPrelu).
    for conv, fans in ((block.branch.conv1, 512 + 512), (block.branch.conv2, 9 * (16 + 512))):
        assert conv.weight.std().item() == pytest.approx((4 / 1.0625 / fans) ** 0.5, rel=0.02)
    assert (block.branch.norm3.weight == 0).all()
    assert (block.branch.norm2.weight == 1).all()
    assert (block.fusion.attention.local_context.squeeze.bias == 0).all()
    cifar = AFFResNet(aff.CIFAR_RESNET32, "aff", num_classes=100)
    weight = cifar.get_parameter("stages.2.4.branch.conv1.weight")
    bound = (6 / (9 * 512)) ** 0.5
    assert 0.99 * bound < weight.abs().max().item() <= bound * (1 + 1e-6)
    with torch.inference_mode():
        x = torch.rand(1, 1024, 4, 4)
        # The branch says nothing yet, so that all is the shortcut's.
        gate = network.stages[2][1].eval().fusion.gate(torch.zeros_like(x), x)
        torch.testing.assert_close(network.stages[2][1](x), 2 * (1 - gate) * x)
