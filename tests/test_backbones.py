"""Backbones give the maps and features that they say, for any number of bands."""

import pytest
import torch
from backbone_checks import gives_map_and_feature

from tnet.backbones.efficientnet import TappedEfficientNet
from tnet.backbones.generic import TimmBackbone, timm_names
from tnet.errors import UsageError

NETWORKS = [
    "convnext_atto",
    "efficientnet_b0",
    "mobilenetv3_small_050",
    "regnetx_002",
    "resnet18",
    "test_byobnet",
    "test_convnext",
    "test_efficientnet",
    "test_resnet",
]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bands", [1, 5])
def test_a_timm_model_gives_what_it_says(name: str, bands: int) -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone(name, bands=bands)
    view = torch.randn(2, bands, 96, 64)
    gives_map_and_feature(backbone, view, backbone.map_channels, (6, 4))


def test_a_transformer_at_its_native_size() -> None:
    backbone = TimmBackbone("vit_tiny_patch16_224", bands=3).eval()
    with torch.inference_mode():
        feature_map, feature = backbone(torch.randn(1, 3, 224, 224))
    assert feature_map.shape == (1, 192, 14, 14)
    assert feature.shape == (1, 192)
    assert (backbone.map_channels, backbone.features) == (192, 192)


def test_a_transformer_at_another_size_is_a_sentence() -> None:
    backbone = TimmBackbone("test_vit", bands=3)
    with pytest.raises(UsageError, match=r"test_vit.* view"):
        backbone(torch.randn(1, 3, 100, 160))


@pytest.mark.parametrize(("stride", "side"), [(4, 16), (8, 8), (16, 4), (32, 2), (20, 4)])
def test_the_deepest_map_that_is_fine_enough(stride: int, side: int) -> None:
    backbone = TimmBackbone("resnet18", stride=stride).eval()
    with torch.inference_mode():
        feature_map, _ = backbone(torch.zeros(1, 3, 64, 64))
    assert feature_map.shape == (1, backbone.map_channels, side, side)


def test_the_feature_is_the_pooled_end_of_the_network() -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone("resnet18").eval()
    view = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        _, feature = backbone(view)
        torch.testing.assert_close(feature, backbone.model(view), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["hf-hub:x/y", "hf_hub:x/y", "local-dir:x", "../x", "x/resnet18", "", "resnet"]
)
def test_only_names_of_architectures(name: str) -> None:
    with pytest.raises(UsageError, match="timm has no model named"):
        TimmBackbone(name)


def test_a_stride_that_no_map_has() -> None:
    with pytest.raises(UsageError, match="no map at a stride of 1"):
        TimmBackbone("resnet18", stride=1)


@pytest.mark.parametrize("name", ["vgg11", "aff_resnet32_cifar", "bagnet77"])
def test_no_stochastic_depth(name: str) -> None:
    with torch.device("meta"), pytest.raises(UsageError, match=f"'{name}' has no stochastic depth"):
        TimmBackbone(name, drop_path=0.1)


def test_the_names_are_those_that_can_be_built() -> None:
    names = timm_names()
    assert {"resnet18", "convnext_atto"} <= set(names)
    assert not [name for name in names if ":" in name or "/" in name]


@pytest.mark.parametrize("tap", [(0, 0), (3, 2), (6, 0)])
def test_efficientnet_is_tapped_anywhere(tap: tuple[int, int]) -> None:
    backbone = TappedEfficientNet(tap, width=0.25, bands=6, drop_path=0.2)
    feature_map, feature = backbone(torch.randn(2, 6, 65, 96))
    assert feature_map.shape[:2] == (2, backbone.map_channels)
    assert feature.shape == (2, backbone.features)


@pytest.mark.parametrize("tap", [(7, 0), (3, 3)])
def test_a_block_that_is_not_there(tap: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="has no block"):
        TappedEfficientNet(tap)
