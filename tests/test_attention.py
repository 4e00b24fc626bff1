"""Grad-CAM equals its formula at any stage of any backbone; sfd equals what a hand computes."""

import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tnet.attention import grad_cam, salience, sfd
from tnet.errors import UsageError
from tnet.model import TNet
from tnet.plan import Plan, Step
from tnet.recipes import build


class Linear(nn.Module):
    """Logits that are linear in the one map, so that Grad-CAM is known: two channels, two classes.

    The map is the view itself; class k has the mean of channel k, less that of the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Conv2d(2, 2, 1, bias=False)
        nn.init.dirac_(self.stage.weight)

    def forward(self, view: Tensor) -> Tensor:
        mean = self.stage(view).mean(dim=(2, 3))
        return torch.stack([mean[:, 0] - mean[:, 1], mean[:, 1] - mean[:, 0]], dim=1)


@pytest.fixture
def tnet() -> TNet:
    torch.manual_seed(0)
    model = build("default", classes=["dog", "cat", "owl"], backbone="test_resnet")
    model.plan = Plan(view=(64, 48), steps=(Step(2, 2, 0.5, 1),))
    return model


def by_hand(logits: Callable[[], Tensor], layer: nn.Module, target: int) -> Tensor:
    """Return Grad-CAM as its two equations say."""
    maps: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        maps.append(output)

    handle = layer.register_forward_hook(keep)
    logit = logits()[0, target]
    handle.remove()
    (gradient,) = torch.autograd.grad(logit, maps)
    weight = gradient.mean(dim=(2, 3), keepdim=True)
    return F.relu((weight * maps[0]).sum(dim=1))[0].detach()


def test_a_map_that_a_hand_can_compute() -> None:
    view = torch.zeros(2, 2, 3)
    view[0, 0, 1] = 6.0
    view[1, 1, 2] = 12.0
    # Six pixels: each gradient is 1/6 for its own class, and so is its mean.
    wanted = torch.zeros(2, 3)
    wanted[0, 1] = 1.0
    torch.testing.assert_close(grad_cam(Linear(), view, 0, "stage"), wanted)
    wanted = torch.zeros(2, 3)
    wanted[1, 2] = 2.0
    torch.testing.assert_close(grad_cam(Linear(), view, 1, "stage"), wanted)


# One of each family that comes with TNet.
FAMILIES = [
    "van_b0",
    "iaff_resnet32_cifar",
    "aff_resnet18_port",
    "rfaconv_resnet18",
    "das_resnet18",
    "bagnet77",
]


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", *FAMILIES])
@pytest.mark.parametrize("stage", [-2, -1])
def test_a_stage_of_a_timm_model(name: str, stage: int) -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model(name, num_classes=4).eval()
    view = torch.randn(3, 64, 96)
    module = model.get_submodule(model.feature_info[stage]["module"])
    cams = [grad_cam(model, view, target, stage) for target in range(4)]
    for target, cam in enumerate(cams):
        wanted = by_hand(lambda: model(view[None]), module, target)
        torch.testing.assert_close(cam, wanted, rtol=1e-4, atol=1e-7)
        assert not cam.requires_grad
    assert max(cam.max() for cam in cams) > 0


@pytest.mark.parametrize("aggregate", ["mean", "weighting"])
def test_inside_a_glimpse(aggregate: str) -> None:
    torch.manual_seed(0)
    model: Any = build("default", classes=["a", "b"], backbone="test_resnet", aggregate=aggregate)
    nn.init.ones_(model.classifier.linear.weight)
    model.train()
    model.backbone.model.layer2.eval()
    learning = [module.training for module in model.modules()]
    view = torch.randint(0, 255, (3, 48, 64), dtype=torch.uint8)
    places = ((50.0, 50.0, 0.0), (10.0, 90.0, 3.0))
    cams = {at: grad_cam(model, view, "b", -1, position=at) for at in (None, *places)}
    assert [module.training for module in model.modules()] == learning
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    for place in places:

        def logits(place: tuple[float, float, float] = place) -> Tensor:
            feature = model.place(model.look(view[None]).feature, torch.tensor([place]))
            return model.classifier(feature)

        wanted = by_hand(logits, model.backbone.model.layer4, 1)
        torch.testing.assert_close(cams[place], wanted, rtol=1e-4, atol=1e-7)
        assert wanted.max() > 0
    assert torch.equal(cams[None], cams[places[0]])
    assert not torch.allclose(cams[places[0]], cams[places[1]], atol=1e-7)


@pytest.mark.parametrize("name", FAMILIES)
def test_any_family_inside_a_glimpse(name: str) -> None:
    torch.manual_seed(0)
    model: Any = build("default", classes=["a", "b"], backbone=name, bands=4).eval()
    network = model.backbone.model
    layer = network.get_submodule(network.feature_info[-2]["module"])
    view = torch.randint(0, 255, (4, 48, 64), dtype=torch.uint8)
    place = (10.0, 90.0, 3.0)

    def logits() -> Tensor:
        feature = model.place(model.look(view[None]).feature, torch.tensor([place]))
        return model.classifier(feature)

    for number, name_of_class in enumerate(model.classes):
        cam = grad_cam(model, view, name_of_class, -2, position=place)
        torch.testing.assert_close(cam, by_hand(logits, layer, number), rtol=1e-4, atol=1e-7)


def test_the_released_backbones_have_stages_by_name() -> None:
    torch.manual_seed(0)
    view = torch.randint(0, 255, (3, 77, 77), dtype=torch.uint8)
    model = build("official_imagenet", classes=["a", "b"])
    assert grad_cam(model, view, 0, "parts.2").shape[0] > 1
    model = build("official_fmow", classes=["a", "b"], width=0.1)
    assert grad_cam(model, view, 0, "blocks.4.0").shape == (5, 5)
    with pytest.raises(UsageError, match=r"never calls its module 'blocks\.4' as a whole"):
        grad_cam(model, view, 0, "blocks.4")


def test_frozen_weights_and_inference_mode(tnet: TNet) -> None:
    view = torch.rand(3, 48, 64)
    wanted = grad_cam(tnet, view, 0, -1)
    for parameter in tnet.parameters():
        parameter.requires_grad_(False)
    with torch.inference_mode():
        assert torch.equal(grad_cam(tnet, view, 0, -1), wanted)
    with torch.no_grad():
        assert torch.equal(grad_cam(tnet, view, 0, -1), wanted)


def test_a_missing_pixel_spoils_nothing(tnet: TNet) -> None:
    view = torch.rand(3, 48, 64) * 255
    view[:, 3, 4] = math.nan
    assert grad_cam(tnet, view, 0, -1).isfinite().all()


@pytest.mark.parametrize(
    ("target", "stage", "match"),
    [
        ("fox", -1, "no class 'fox'; there are dog, cat, owl"),
        (3, -1, "no class 3; there are 3"),
        (-1, -1, "no class -1"),
        (0, 5, "has 5 stages, none of them 5"),
        (0, -6, "has 5 stages, none of them -6"),
        (0, "layer9", "no module 'layer9'"),
        (0, "global_pool", "gives no map"),
    ],
)
def test_what_is_not_there(tnet: TNet, target: int | str, stage: int | str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        grad_cam(tnet, torch.rand(3, 48, 64), target, stage)


def test_a_class_that_another_model_has_not() -> None:
    with pytest.raises(UsageError, match="has no class 2"):
        grad_cam(Linear(), torch.rand(2, 2, 3), 2, "stage")
    with pytest.raises(UsageError, match="no class 'dog'; there are none"):
        grad_cam(Linear(), torch.rand(2, 2, 3), "dog", "stage")


def test_backbones_without_maps() -> None:
    view = torch.randn(3, 160, 160)
    with pytest.raises(UsageError, match="gives no map"):
        grad_cam(timm.create_model("test_vit").eval(), view, 0, -1)
    with pytest.raises(UsageError, match="channels first"):
        grad_cam(timm.create_model("swin_tiny_patch4_window7_224"), view, 0, -1)


def test_salience_is_the_map_over_the_view() -> None:
    cam = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    full = salience(cam, 4, 6)
    assert full.shape == (4, 6)
    assert full.max() == 1
    assert full.min() == 0
    assert full.argmax() in (4, 5)
    assert salience(torch.zeros(2, 2), 4, 6).isnan().all()


def a_map(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows)


LEFT = torch.tensor([[True, False], [True, False]])


def test_sfd_of_a_uniform_map() -> None:
    assert sfd(torch.full((2, 2), 0.6), LEFT) == pytest.approx(0.5)


def test_sfd_where_nothing_outside_is_salient() -> None:
    assert sfd(a_map((0.9, 0.1), (0.4, 0.1)), LEFT) == 1


def test_the_threshold_says_what_is_salient() -> None:
    cam = a_map((0.8, 0.2), (0.4, 0.6))
    assert sfd(cam, LEFT, threshold=0.1) == pytest.approx(0.6 / (0.6 + 0.4))
    assert sfd(cam, LEFT, threshold=0.6) == pytest.approx(0.6 / (0.6 + 0.6))
    assert sfd(cam, LEFT, threshold=0.7) == 1


def test_mean_and_sum_differ_by_the_areas() -> None:
    cam = a_map((0.9, 0.5, 0.5), (0.0, 0.5, 0.0))
    region = torch.zeros(2, 3, dtype=torch.bool)
    region[0, 0] = True
    assert sfd(cam, region) == pytest.approx(0.9 / (0.9 + 0.5))
    assert sfd(cam, region, weight="sum") == pytest.approx(0.9 / (0.9 + 1.5))


@pytest.mark.parametrize("weight", ["mean", "sum"])
@pytest.mark.parametrize("scaling", ["none", "inverse_log"])
def test_object_and_rest_add_up_to_one(
    weight: Literal["mean", "sum"], scaling: Literal["none", "inverse_log"]
) -> None:
    torch.manual_seed(0)
    cam = torch.rand(5, 7) * 0.8 + 0.2
    region = torch.rand(5, 7) < 0.3
    here, elsewhere = (sfd(cam, r, weight=weight, scaling=scaling) for r in (region, ~region))
    assert here + elsewhere == pytest.approx(1)


def test_inverse_logarithm() -> None:
    cam = a_map((1.0, 0.5), (1.0, 0.5))
    # log(1 - 0.99 * 0.5) / log(0.01), beside 1 for the object.
    other = math.log(0.505) / math.log(0.01)
    got = sfd(cam, LEFT, scaling="inverse_log", floor=0.01)
    assert got == pytest.approx(1 / (1 + other))


def test_undefined_scores() -> None:
    assert math.isnan(sfd(torch.full((2, 2), math.nan), LEFT))
    assert math.isnan(sfd(torch.zeros(2, 2), LEFT))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"threshold": 1.1}, "threshold"),
        ({"threshold": math.nan}, "threshold"),
        ({"weight": "median"}, "weight"),
        ({"scaling": "log"}, "scaling"),
        ({"floor": 0.0}, "floor"),
    ],
)
def test_choices_that_make_no_sense(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=f"{match} must be"):
        sfd(torch.rand(2, 2), LEFT, **options)


def test_maps_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match="same rows and columns"):
        sfd(torch.rand(2, 3), LEFT)
    with pytest.raises(UsageError, match="same rows and columns"):
        sfd(torch.rand(2, 2), LEFT.float())
    with pytest.raises(UsageError, match="no pixel"):
        sfd(torch.rand(2, 2), torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(UsageError, match="from 0 to 1"):
        sfd(torch.rand(2, 2) * 9 + 1, LEFT)
