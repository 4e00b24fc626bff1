"""DAS gates go into any timm backbone with maps, and the registered variants are timm models."""

import copy
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
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tnet.backbones.das import DeformableGate, add_das
from tnet.backbones.generic import TimmBackbone
from tnet.errors import UsageError

VARIANTS = ["das_mobilenetv2_100", "das_resnet101", "das_resnet18", "das_resnet50"]
SMALL = ["das_mobilenetv2_100", "das_resnet18"]


def gates(model: nn.Module) -> list[DeformableGate]:
    return [module for module in model.modules() if isinstance(module, DeformableGate)]


def open_gates(model: nn.Module) -> None:
    """Make every gate let half of everything through."""
    for gate in gates(model):
        nn.init.zeros_(gate.layer_norm.weight)
        nn.init.zeros_(gate.layer_norm.bias)


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_says_what_it_is(name: str) -> None:
    with torch.device("meta"):
        model: Any = timm.create_model(name, num_classes=62, in_chans=4)
    cfg = model.default_cfg
    assert cfg["input_size"] == (3, 224, 224)
    assert cfg["mean"] == (0.485, 0.456, 0.406)
    assert model.get_submodule(cfg["first_conv"]).weight.shape[1] == 4
    assert model.get_submodule(cfg["classifier"]).weight.shape[0] == 62
    assert len(gates(model)) == (7 if "mobilenet" in name else 4)


def test_the_seven_gates_of_mobilenet_fit_the_published_counts() -> None:
    with torch.device("meta"):
        model = timm.create_model("das_mobilenetv2_100").eval()
        x = torch.empty(1, 3, 224, 224)
    honest = sum(parameter.numel() for parameter in model.parameters())
    without = honest - sum(gate.deform.weight.numel() for gate in gates(model))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    # Their tool did not see the layer norms' 1,424 either.
    assert (honest, without) == (3_832_193, 3_574_017 + 1_424)
    assert round(counter.get_total_flops() / 2e9, 3) == 0.348


@pytest.mark.parametrize("name", SMALL)
def test_as_a_backbone_at_any_resolution(name: str) -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone(name, bands=5, stride=16, drop_path=0.1)
    channels = 96 if "mobilenet" in name else 256
    for size, side in (((64, 64), (4, 4)), ((33, 96), (3, 6))):
        gives_map_and_feature(backbone, torch.randn(1, 5, *size), channels, side)


@pytest.mark.parametrize("name", SMALL)
def test_the_maps_are_those_behind_the_gates(name: str) -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model(name, num_classes=3).eval()
    features: Any = timm.create_model(name, features_only=True, out_indices=(2, 4)).eval()
    own = {key.removeprefix("model."): value for key, value in features.state_dict().items()}
    features.model.load_state_dict({key: model.state_dict()[key] for key in own})
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        _, maps = model.forward_intermediates(x, indices=[2, 4])
        for got, wanted in zip(features(x), maps, strict=True):
            assert torch.equal(got, wanted)
        shapes = [feature_map.shape[1] for feature_map in maps]
        assert features.feature_info.channels() == shapes
        pooled = model.forward_head(model.forward_features(x), pre_logits=True)
        assert pooled.shape == (1, model.head_hidden_size)
        model.reset_classifier(7)
        assert model(x).shape == (1, 7)


def test_a_gate_alters_the_map_of_its_stage() -> None:
    torch.manual_seed(0)
    plain: Any = timm.create_model("resnet18", num_classes=3).eval()
    gated: Any = add_das(copy.deepcopy(plain), [4])
    open_gates(gated)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        _, before = plain.forward_intermediates(x)
        _, after = gated.forward_intermediates(x)
    for i in range(4):
        assert torch.equal(before[i], after[i])
    assert torch.equal(before[4] / 2, after[4])


# RegNet's stages call all their children, ConvNeXt's name them, DenseNet's hand a list around.
@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "regnetx_002", "convnext_atto", "densenet121", "test_byobnet"]
)
def test_gates_go_into_any_convolutional_backbone(name: str) -> None:
    torch.manual_seed(0)
    plain: Any = timm.create_model(name, num_classes=0).eval()
    gated: Any = add_das(copy.deepcopy(plain), 1)
    open_gates(gated)
    assert len(gates(gated)) == 1
    again = copy.deepcopy(gated)
    x = torch.randn(1, 3, 64, 64)
    last = len(plain.feature_info) - 1
    with torch.inference_mode():
        _, before = plain.forward_intermediates(x, indices=[last])
        _, after = gated.forward_intermediates(x, indices=[last])
        assert torch.equal(before[0] / 2, after[0])
        # A copy's gates are its own.
        nn.init.constant_(gates(again)[0].layer_norm.bias, 100.0)
        assert torch.equal(again.forward_intermediates(x, indices=[last])[1][0], before[0])
        assert torch.equal(gated.forward_intermediates(x, indices=[last])[1][0], after[0])


def test_gates_follow_the_model() -> None:
    model = add_das(timm.create_model("test_convnext", num_classes=3).double().eval(), 2)
    for gate in gates(model):
        assert gate.depthwise.weight.dtype == torch.float64
        assert not gate.training
    assert sum("sampling.weight" in key for key in model.state_dict()) == 2


def test_gates_are_there_when_activations_are_recomputed() -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model("das_mobilenetv2_100", num_classes=2, bn_eps=1e-3).eval()
    x = torch.randn(1, 3, 64, 64)
    plain = model(x)
    model.set_grad_checkpointing(True)
    recomputed = model(x.requires_grad_())
    torch.testing.assert_close(recomputed, plain)
    recomputed.sum().backward()
    assert all(gate.deform.weight.grad is not None for gate in gates(model))


@pytest.mark.parametrize("name", SMALL)
def test_a_single_view_trains_every_weight(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3)
    trains_every_weight(model, torch.randn(1, 3, 64, 64))
    slopes = [gate.sampling.weight.grad for gate in gates(model)[:3]]
    assert all(slope is not None and slope.abs().max() > 0 for slope in slopes)


@pytest.mark.parametrize("name", SMALL)
def test_a_single_view_of_32_pixels_trains(name: str) -> None:
    """The last map is one pixel, of which a batch norm can learn nothing."""
    model = timm.create_model(name, num_classes=3)
    trains_every_weight(model, torch.randn(1, 3, 32, 32))
    norms: list[Any] = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert (norms[0].running_mean != 0).all()
    assert (norms[-1].running_mean == 0).all()


@pytest.mark.parametrize("name", SMALL)
def test_a_gated_network_is_the_plain_one_and_gates(name: str) -> None:
    torch.manual_seed(0)
    gated = timm.create_model(name, num_classes=3).double().eval()
    plain = timm.create_model(name.removeprefix("das_"), num_classes=3).double().eval()
    plain.load_state_dict({key: gated.state_dict()[key] for key in plain.state_dict()})
    twins = zip(
        *([m for m in net.modules() if isinstance(m, nn.BatchNorm2d)] for net in (gated, plain)),
        strict=True,
    )
    assert all((a.eps, a.momentum) == (b.eps, b.momentum) for a, b in twins)
    for gate in gates(gated):
        nn.init.zeros_(gate.layer_norm.weight)
        nn.init.constant_(gate.layer_norm.bias, 100.0)
    view = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(gated(view), plain(view))


def test_group_norms_train_on_maps_of_one_pixel() -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone("das_resnet18", norm="group").train()
    _, feature = backbone(torch.randn(1, 3, 32, 32))
    feature.sum().backward()
    assert feature.isfinite().all()


@pytest.mark.parametrize("training", [False, True])
def test_bfloat16(training: bool) -> None:
    torch.manual_seed(0)
    model = timm.create_model("das_resnet18", num_classes=3).train(training)
    x = torch.randn(2, 3, 64, 64)
    works_in_bfloat16(model, x, atol=0.1)
    wanted = model(x)
    whole = model.bfloat16()(x.bfloat16())
    torch.testing.assert_close(whole.float(), wanted, rtol=0.1, atol=0.1)


def test_memory_format_and_precision_change_nothing() -> None:
    model = timm.create_model("das_resnet18", num_classes=3)
    ignores_memory_format(model, torch.randn(2, 3, 64, 64), atol=1e-5)


def test_a_gate_keeps_the_maps_type_and_layout() -> None:
    gate = DeformableGate(16).bfloat16()
    x = torch.randn(1, 16, 5, 4).bfloat16().to(memory_format=torch.channels_last)
    assert gate(x).dtype == torch.bfloat16
    assert gate(x).is_contiguous(memory_format=torch.channels_last)


def test_compiled_without_a_break() -> None:
    torch.manual_seed(0)
    model = add_das(timm.create_model("test_resnet", num_classes=3)).eval()
    is_one_graph(model, torch.randn(1, 3, 64, 64))


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_a_gate_compiled(training: bool) -> None:
    gate = DeformableGate(8).train(training)
    nn.init.normal_(gate.sampling.weight)
    compiles(gate, torch.randn(2, 8, 6, 5))


@pytest.mark.slow
def test_a_network_compiled() -> None:
    model = add_das(timm.create_model("test_resnet", num_classes=3)).eval()
    compiles(model, torch.randn(1, 3, 64, 64))


def test_export_with_any_batch() -> None:
    torch.manual_seed(0)
    model = timm.create_model("das_resnet18", num_classes=3)
    exports_with_any_batch(model, torch.randn(2, 3, 64, 64))


def test_torchs_counter_sees_the_backward_pass_too() -> None:
    gate = DeformableGate(20)
    with FlopCounterMode(display=False) as counter:
        gate(torch.randn(1, 20, 4, 4)).sum().backward()
    per_op = counter.get_flop_counts()["Global"]
    forward = 2 * 16 * 9 * 4 * 20
    assert per_op[torch.ops.torchvision.deform_conv2d] == forward
    assert per_op[torch.ops.torchvision._deform_conv2d_backward] == 2 * forward


@pytest.mark.parametrize(
    ("stages", "match"),
    [
        ("layer9", "no stage 'layer9'"),
        (["layer9"], "no stage 'layer9'"),
        ([5], "no stage 5"),
        ([-1], "no stage -1"),
        (6, "no stage -1"),
        (0, "at least one stage"),
        ([], "at least one stage"),
        (["maxpool"], "no convolution"),
    ],
)
def test_stages_that_are_not_there(stages: Any, match: str) -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet18")
    with pytest.raises(UsageError, match=match):
        add_das(model, stages)
    assert not gates(model)


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1.5, float("nan"), 0.01])
def test_alphas_that_leave_no_channel(alpha: float) -> None:
    with pytest.raises(UsageError, match="alpha must be from"):
        DeformableGate(64, alpha)


@pytest.mark.parametrize("name", ["resnet18", "test_convnext"])
def test_no_stage_has_two_gates(name: str) -> None:
    model = add_das(timm.create_model(name), 1)
    with pytest.raises(UsageError, match="has a DAS gate already"):
        add_das(model, 1)


def test_backbones_without_maps() -> None:
    with pytest.raises(UsageError, match="needs a convolutional backbone"):
        add_das(timm.create_model("swin_tiny_patch4_window7_224"))
    tokens = add_das(timm.create_model("test_vit"), 1)
    with pytest.raises(UsageError, match="needs a map"):
        tokens(torch.randn(1, 3, 160, 160))


def test_no_weights_are_published() -> None:
    with pytest.raises(UsageError, match=r"add_das\(timm.create_model\('resnet18'"):
        timm.create_model("das_resnet18", pretrained=True)
