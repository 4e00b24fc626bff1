"""BagNet-77: counts, maps, any size and bands, what a unit sees, and the recipe's own form."""

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

from tnet.backbones.bagnet import BagNet77, TappedBagNet77
from tnet.backbones.generic import TimmBackbone, timm_names
from tnet.costs import cost
from tnet.errors import UsageError
from tnet.recipes import build


@pytest.fixture
def network() -> BagNet77:
    torch.manual_seed(0)
    return BagNet77(num_classes=5)


def test_it_costs_what_the_released_code_does() -> None:
    """TensorFlow's profiler counts 36.92 and 3.616 G FLOPs there, biases included."""
    assert "bagnet77" in timm_names()
    counted = cost("bagnet77", [(224, 224), (77, 77)])
    assert counted.parameters == 20_546_664
    for macs, profiled in zip(counted.macs.values(), (36.92e9, 3.616e9), strict=True):
        assert 2 * macs == pytest.approx(profiled, rel=0.003)


def test_maps_and_head() -> None:
    with torch.device("meta"):
        network: Any = timm.create_model("bagnet77", num_classes=62, in_chans=4)
        features: Any = timm.create_model("bagnet77", features_only=True, in_chans=4)
        maps = features(torch.empty(1, 4, 77, 100))
        assert network(torch.empty(1, 4, 77, 100)).shape == (1, 62)
    assert features.feature_info.reduction() == [2, 4, 8, 8]
    assert features.feature_info.channels() == [m.shape[1] for m in maps] == [256, 512, 1024, 512]
    assert [m.shape[2:] for m in maps] == [(38, 49), (19, 25), (9, 12), (7, 10)]
    described = network.default_cfg
    assert described["input_size"] == (3, 77, 77)
    assert described["mean"] == described["std"] == (0.5, 0.5, 0.5)
    assert network.get_submodule(described["first_conv"]).in_channels == 4
    assert network.get_submodule(described["classifier"]).out_features == 62


def test_no_weights_to_download() -> None:
    with pytest.raises(UsageError, match="nobody has published weights"):
        timm.create_model("bagnet77", pretrained=True)


@pytest.mark.parametrize(
    ("size", "side"), [((77, 77), (7, 7)), ((27, 50), (1, 3)), ((224, 96), (25, 9))]
)
def test_a_backbone_of_any_size_and_bands(size: tuple[int, int], side: tuple[int, int]) -> None:
    backbone = TimmBackbone("bagnet77", bands=4)
    gives_map_and_feature(backbone, torch.randn(1, 4, *size), 512, side)
    assert backbone.features == 512


def test_the_map_of_the_paper_is_that_of_stage_4() -> None:
    with torch.device("meta"):
        network: Any = timm.create_model("bagnet77")
        _, maps = network.forward_intermediates(torch.empty(1, 3, 77, 77), indices=[2])
    assert maps[0].shape == (1, 1024, 9, 9)


@pytest.mark.parametrize("size", [(26, 77), (77, 26)])
def test_views_that_leave_no_map(size: tuple[int, int], network: BagNet77) -> None:
    features: Any = timm.create_model("bagnet77", features_only=True)
    for each in (network, features, TappedBagNet77()):
        with pytest.raises(UsageError, match=f"27 x 27 pixels or more, got {size[1]} x {size[0]}"):
            each(torch.zeros(1, 3, *size))


def test_a_unit_sees_77_pixels(network: BagNet77) -> None:
    view = torch.randn(1, 3, 149, 149, requires_grad=True)
    last = network.forward_features(view)
    assert last.shape[2:] == (16, 16)
    last[0, :, 8, 8].sum().backward()
    assert view.grad is not None
    rows, columns = view.grad[0].abs().sum(0).nonzero(as_tuple=True)
    spans = [(int(axis.min()), int(axis.max())) for axis in (rows, columns)]
    assert [end - start + 1 for start, end in spans] == [77, 77]


def test_the_recipes_form_computes_the_same(network: BagNet77) -> None:
    """Its weights keep the names that they have in model files."""
    recipe: Any = build("official_imagenet", classes=["a"]).eval()
    state = network.state_dict()
    names = {
        name: name.replace("stages.3.top", "top").replace("stages", "parts")
        for name in state
        if not name.startswith("head.")
    }
    recipe.backbone.load_state_dict({ours: state[name] for name, ours in names.items()})
    view = torch.randn(2, 3, 77, 90)
    with torch.inference_mode():
        last, maps = network.eval().forward_intermediates(view)
        feature_map, feature = recipe.backbone(view)
        assert torch.equal(feature_map, maps[2])
        pooled = network.forward_head(last, pre_logits=True)
        torch.testing.assert_close(feature, pooled, rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", [27, 77])
def test_training_on_one_view(side: int) -> None:
    """At 27 pixels the last map is one pixel; there is no batch norm that could mind."""
    trains_every_weight(BagNet77(num_classes=5, drop_rate=0.5), torch.randn(1, 3, side, side))


def test_dropout_is_of_whole_channels() -> None:
    features = TappedBagNet77(dropout=0.5).train()(torch.ones(1, 3, 77, 77))[1]
    pooled = BagNet77(num_classes=0, drop_rate=0.5).train()(torch.ones(1, 3, 77, 77))
    for each in (features, pooled):
        assert 100 < (each == 0).sum() < 400


@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_autocast(training: bool, network: BagNet77) -> None:
    works_in_bfloat16(network.train(training), torch.randn(2, 3, 77, 77), atol=0.05)


def test_bfloat16_inference(network: BagNet77) -> None:
    infers_in_bfloat16(network, torch.randn(2, 3, 77, 77))


def test_memory_format_and_precision_change_nothing(network: BagNet77) -> None:
    ignores_memory_format(network, torch.randn(2, 3, 77, 77))


def test_one_graph_for_the_compiler(network: BagNet77) -> None:
    is_one_graph(network.eval(), torch.randn(1, 3, 32, 32))


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_a_stage_compiled(training: bool, network: BagNet77) -> None:
    compiles(network.stages[0].train(training), torch.randn(1, 64, 20, 20))


@pytest.mark.slow
def test_a_network_compiled(network: BagNet77) -> None:
    compiles(network.eval(), torch.randn(1, 3, 64, 64))


def test_export_with_any_batch(network: BagNet77) -> None:
    exports_with_any_batch(network, torch.randn(2, 3, 77, 77))
