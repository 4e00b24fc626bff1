"""What a backbone lets through where: as the families' formulas say, the network left as it was."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from tnet.attention import soft_attention
from tnet.backbones.fusion import AFF
from tnet.backbones.large_kernel import LargeKernelAttention
from tnet.backbones.receptive import ReceptiveConv, RFAConv, RFCAConv, RFCBAMConv
from tnet.recipes import build

# A module of each family, and the size of its first map for a view of 64 x 96.
FAMILIES = {
    "van_b0": (13, (16, 24)),
    "iaff_resnet32_cifar": (15, (64, 96)),
    "aff_resnet18_port": (8, (16, 24)),
    "rfaconv_resnet18": (8, (16, 24)),
    "rfcbamconv_resnet18": (8, (48, 72)),
    "rfcaconv_resnet18": (8, (48, 72)),
    "das_resnet18": (4, (16, 24)),
    "bagnet77": (0, None),
    "test_resnet": (0, None),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_that_has_one(name: str) -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model(name, num_classes=2)
    view = torch.randn(3, 64, 96)
    found = soft_attention(model, view)
    count, size = FAMILIES[name]
    assert len(found) == count
    assert model.training
    assert not any(module._forward_pre_hooks for module in map(model.get_submodule, found))
    for place, map_hw in found.items():
        assert hasattr(model.get_submodule(place), "soft_attention")
        assert map_hw.ndim == 2
        assert map_hw.isfinite().all()
        assert map_hw.min() >= 0
    if size:
        assert next(iter(found.values())).shape == size
    model.eval()
    with torch.inference_mode():
        before = model(view[None])
        soft_attention(model, view)
        assert torch.equal(model(view[None]), before)


def test_inside_a_tnet_and_its_scout() -> None:
    torch.manual_seed(0)
    model: Any = build("default", classes=["a", "b"], backbone="das_resnet18", scout="van_b0")
    view = torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8)
    assert list(soft_attention(model, view)) == [f"layer{i}.das" for i in range(1, 5)]
    assert all("attention.gate" in name for name in soft_attention(model, view, first=True))
    model.eval()
    wanted: list[torch.Tensor] = []
    gate = model.backbone.model.layer4.das
    handle = gate.register_forward_hook(lambda m, x, y: wanted.append(m.gate(x[0]).mean(dim=1)))
    with torch.inference_mode():
        model.look(view[None])
    handle.remove()
    found = soft_attention(model, view)["layer4.das"]
    torch.testing.assert_close(found, wanted[0][0])


def test_large_kernels_by_hand() -> None:
    attention = LargeKernelAttention(2)
    for part in (attention.local, attention.distant, attention.mix):
        nn.init.zeros_(part.weight)
        assert part.bias is not None
        nn.init.zeros_(part.bias)
    assert attention.mix.bias is not None
    attention.mix.bias.data = torch.tensor([3.0, -5.0])
    found = attention.soft_attention(torch.ones(1, 2, 4, 5))
    torch.testing.assert_close(found, torch.full((1, 4, 5), 4.0))


def test_an_even_fusion() -> None:
    fusion = AFF(8)
    for name, parameter in fusion.named_parameters():
        if "norm2" in name:
            nn.init.zeros_(parameter)
    found = fusion.eval().soft_attention(torch.randn(1, 8, 3, 4), torch.randn(1, 8, 3, 4))
    torch.testing.assert_close(found, torch.full((1, 3, 4), 0.5))


@pytest.mark.parametrize("stride", [1, 2])
def test_receptive_fields_that_weigh_all_alike(stride: int) -> None:
    conv = RFAConv(4, 6, stride=stride).eval()
    nn.init.zeros_(conv.weigh.weight)
    found = conv.soft_attention(torch.randn(1, 4, 7, 9))
    torch.testing.assert_close(found, torch.ones(1, 7, 9))


def test_a_tap_that_takes_all() -> None:
    conv = RFAConv(1, 1).eval()
    nn.init.zeros_(conv.weigh.weight)
    conv.weigh.weight.data[4] = 1e3  # the middle of the 3 x 3
    found = conv.soft_attention(torch.ones(1, 1, 5, 5))
    torch.testing.assert_close(found[0, 1:-1, 1:-1], torch.ones(3, 3))
    assert found.sum() > 25  # pixels at the border lie in fewer fields, and get all the same


@pytest.mark.parametrize("kind", [RFCBAMConv, RFCAConv])
@pytest.mark.parametrize("stride", [1, 2])
def test_maps_are_what_the_features_are_multiplied_with(
    kind: type[ReceptiveConv], stride: int
) -> None:
    torch.manual_seed(0)
    conv = kind(6, 5, stride=stride).eval()
    x = torch.randn(1, 6, 8, 10)
    with torch.inference_mode():
        ratio = conv.weighted_map(x) / conv.feature_map(x)
        if isinstance(conv, RFCBAMConv):
            ratio = ratio / conv.channel(x.mean((2, 3)))[:, :, None, None]
        found = conv.soft_attention(x)
        there = conv.feature_map(x) > 1e-3
    if isinstance(conv, RFCBAMConv):
        torch.testing.assert_close(found[:, None].expand_as(ratio)[there], ratio[there])
    else:
        full = there.all(dim=1)
        torch.testing.assert_close(found[full], ratio.mean(dim=1)[full])
