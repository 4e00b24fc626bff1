"""The named models: their sizes, and that they walk on other inputs than the released."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fakes import noise

from tnet.adapters.array import open_array
from tnet.backbones.efficientnet import SCALING
from tnet.errors import UsageError
from tnet.plan import Plan, Step
from tnet.recipes import RECIPES, build
from tnet.traversal import walk


def parameters(recipe: str, classes: int, **options: Any) -> int:
    with torch.device("meta"):
        model = build(recipe, classes=[str(i) for i in range(classes)], **options)
    return sum(p.numel() for p in model.parameters())


CUB = {"b0": 5_516_434, "b1": 8_007_410, "b2": 9_481_448, "b3": 12_785_326, "b4": 20_331_266}
NABIRDS = {"b0": 5_971_189, "b1": 8_462_165, "b2": 9_981_643, "b3": 13_330_961, "b4": 20_967_781}


def test_as_many_parameters_as_released() -> None:
    assert parameters("official_fmow", 62) == 4_517_575
    assert parameters("official_imagenet", 1000) == 21_859_949
    for variant, count in CUB.items():
        assert parameters("official_cub", 200, variant=variant) == count
    for variant, count in NABIRDS.items():
        assert parameters("official_cub", 555, variant=variant) == count


@pytest.mark.parametrize("variant", sorted(SCALING))
def test_every_variant_taps_its_map(variant: str) -> None:
    with torch.device("meta"):
        model = build("official_cub", classes=["a"], variant=variant)
        feature_map, feature = model.backbone(torch.zeros(1, 3, 224, 224))
    assert feature_map.shape[1] == model.backbone.map_channels
    assert feature.shape[1] == model.backbone.features
    side = 14 if variant == "b0" else 28
    assert feature_map.shape[2:] == (side, side)


SMALL: dict[str, dict[str, Any]] = {
    "default": {"backbone": "test_resnet"},
    "imported": {"backbone": "test_resnet"},
    "official_cub": {"width": 0.25},
    "official_fmow": {"width": 0.25},
    "official_imagenet": {},
}


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("view", [(97, 80), (128, 161)], ids=str)
@pytest.mark.parametrize("grid", [(2, 5), (3, 3)], ids=str)
def test_other_views_and_grids(recipe: str, view: tuple[int, int], grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = build(recipe, classes=["a", "b"], bands=4, **SMALL[recipe])
    plan = replace(model.plan, view=view, steps=(Step(*grid, 0.5, 2),), background=None)
    (found,) = walk(model, [open_array(noise(150, 200, 4))], plan)
    assert len(found.glimpses) == 3
    assert np.isfinite(found.logits).all()
    parts = np.array([glimpse.contributions for glimpse in found.glimpses])
    np.testing.assert_allclose(parts.sum(0) + found.bias, found.logits, atol=1e-5)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_what_a_model_was_built_from_is_kept(recipe: str) -> None:
    options: dict[str, Any] = {"classes": ["x", "y", "z"]} | SMALL[recipe]
    model = build(recipe, **options)
    assert model.recipe == (recipe, options)
    assert model.classes == ("x", "y", "z")
    official = recipe.startswith("official_")
    assert model.plan == Plan.from_dict(model.plan.to_dict())
    assert (model.plan.rule, model.plan.outside) == (
        ("official", "zero") if official else ("exact", "image")
    )


def test_standard_features_are_those_of_all_that_is_aggregated() -> None:
    torch.manual_seed(0)
    model = build("default", classes=["a", "b"], backbone="test_resnet", features="standard")
    raw = 4 + 3 * torch.randn(40, model.classifier.linear.in_features)
    nowhere = torch.zeros(40, 3)
    model.position = None
    placed = model.place(raw, nowhere)
    torch.testing.assert_close(placed.mean(0), torch.zeros(len(raw[0])), atol=1e-4, rtol=0)
    assert {"standard.mean", "standard.square"} < model.state_dict().keys()


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("magic", {}),
    ("default", {"colour": "red"}),
    ("default", {"aggregate": "max"}),
    ("default", {"backbone": "no_such_net"}),
    ("default", {"backbone": "hf-hub:timm/resnet18"}),
    ("default", {"backbone": "../resnet18"}),
    ("default", {"stride": 1}),
    ("default", {"bands": 0}),
    ("default", {"dropout": 1.5}),
    ("default", {"features": "normal"}),
    ("default", {"classes": []}),
    ("default", {"classes": "abc"}),
    ("default", {"classes": ["a", "a"]}),
    ("official_fmow", {"tap": "lg4x4"}),
    ("official_fmow", {"depth": 0.3}),
    ("official_fmow", {"width": 1e9}),
    ("official_cub", {"variant": "b9"}),
]


@pytest.mark.parametrize(("recipe", "options"), WRONG, ids=str)
def test_senseless_options_are_refused(recipe: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        build(recipe, **({"classes": ["a"]} | options))
    assert "\n" not in str(caught.value)


def test_without_a_position_a_glimpse_is_its_view_alone() -> None:
    options: dict[str, Any] = {"classes": ["a", "b"], "backbone": "test_resnet"}
    model = build("default", position="none", **options).eval()
    assert model.position is None
    assert build("default", **options).position is not None
    # Four views of the same pixels in four places are the same to it.
    picture = np.tile(noise(32, 32, 3), (2, 2, 1))
    plan = Plan(view=(32, 32), tiles="native")
    with_none = walk(model, [open_array(picture)], plan)[0].features
    with_code = walk(build("default", **options).eval(), [open_array(picture)], plan)[0].features
    assert with_none is not None
    assert with_code is not None
    np.testing.assert_allclose(with_none[1:], np.tile(with_none[1], (4, 1)), atol=1e-5)
    assert np.abs(with_code[1:] - with_code[1]).max() > 1e-3
    with pytest.raises(UsageError, match="position must be 'code' or 'none', got 'some'"):
        build("default", position="some", **options)


def test_the_default_classifier_starts_small_and_the_released_ones_as_released() -> None:
    names = [str(i) for i in range(20)]
    small = build("default", classes=names, backbone="test_resnet").classifier.linear
    assert 0.01 < float(small.weight.detach().std()) < 0.03
    released = build("official_fmow", classes=names, width=0.25).classifier.linear
    bound = 1 / len(names) ** 0.5
    assert 0.9 * bound < float(released.weight.detach().abs().max()) <= bound
    for linear in (small, released):
        assert not linear.bias.detach().any()
