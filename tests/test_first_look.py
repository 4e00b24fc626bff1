"""The first look: a view of its own size, a scout of its own, and maps for fine grids."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FEATURES, fake_model, noise
from torch.nn import functional as F

from tnet.adapters.array import open_array
from tnet.bundle import load, save
from tnet.errors import UsageError
from tnet.geometry import Grid, Region
from tnet.location import ContextLocation, to_grid
from tnet.model import TNet
from tnet.plan import Plan, Step
from tnet.recipes import build
from tnet.traversal import traverse, walk

FINE = Plan(view=(16, 16), first_view=(96, 64), steps=(Step(8, 12, 0.125, 3), Step(2, 2, 0.5, 1)))


def shapes(model: TNet, plan: Plan, pixels: Any) -> list[tuple[int, int]]:
    """Return width and height of what the backbone gets on a walk, a level each."""
    seen: list[tuple[int, int]] = []
    hook = model.backbone.register_forward_hook(
        lambda _, views, __: seen.append((views[0].shape[3], views[0].shape[2]))
    )
    traverse(model, [open_array(pixels)], plan)
    hook.remove()
    return seen


def test_the_first_view_has_a_size_of_its_own() -> None:
    assert shapes(fake_model(FINE), FINE, noise(128, 192)) == [(96, 64), (16, 16), (16, 16)]
    (found,) = walk(fake_model(FINE), [open_array(noise(128, 192))])
    assert (found.first_view, found.view) == ((96, 64), (16, 16))
    assert found.pixels == 96 * 64 + (len(found.glimpses) - 1) * 16 * 16
    assert type(found).from_json(found.to_json()) == found


def test_a_finer_first_view_finds_what_a_coarse_one_cannot() -> None:
    pixels = np.full((512, 512), 60, dtype=np.uint8)
    pixels[::2, 1::2] = 90  # on the whole as bright as the target's surroundings
    pixels[328:336, 200:208] = 255
    fine = Plan(view=(16, 16), first_view=(128, 128), steps=(Step(64, 64, 1 / 64, 1),))
    (found,) = walk(fake_model(fine), [open_array(pixels)])
    assert found.glimpses[1].region == Region(200, 328, 8, 8)


def test_shapes_are_kept_in_the_first_view_s_own_shape() -> None:
    plan = replace(FINE, aspect="keep")
    (found,) = walk(fake_model(plan), [open_array(noise(192, 192))])
    assert found.glimpses[0].region == Region(-48, 0, 288, 192)


def test_a_first_view_that_shows_every_pixel_ends_a_walk_to_native() -> None:
    image = open_array(noise(60, 90))
    plan = Plan(view=(16, 16), steps=(Step(2, 2, 0.5, 1),), until="native")
    assert len(walk(fake_model(plan), [image])[0].glimpses) > 1
    assert len(walk(fake_model(plan), [image], replace(plan, first_view=(90, 60)))[0].glimpses) == 1


def recipe(**options: Any) -> TNet:
    torch.manual_seed(0)
    return build("default", classes=["a", "b"], backbone="test_resnet", **options)


def test_a_scout_takes_the_first_look_alone() -> None:
    model = recipe(scout="test_efficientnet", scout_stride=8).eval()
    assert model.scout is not None
    plan = replace(model.plan, view=(32, 32), first_view=(64, 64), background=None)
    seen: list[tuple[str, int]] = []
    eyes = {"scout": model.scout.backbone, "backbone": model.backbone}
    eyes |= {"scouted": model.scout.location, "located": model.location}
    for name, part in eyes.items():
        part.register_forward_hook(lambda _, got, __, name=name: seen.append((name, len(got[0]))))
    trace = traverse(model, [open_array(noise(200, 200, 3))], plan)
    assert seen == [("scout", 1), ("scouted", 1), ("backbone", 8), ("located", 8), ("backbone", 16)]
    assert trace.look_GD.shape == (25, model.backbone.features)


def test_a_scout_s_feature_gets_the_backbone_s_length() -> None:
    model = recipe(scout="test_efficientnet")
    assert model.scout is not None
    view = torch.zeros(2, 3, 64, 64)
    own = model.scout.backbone(view)[1].shape[1]
    assert own != model.backbone.features
    assert model.look(view, first=True).feature.shape == (2, model.backbone.features)
    same = recipe(scout="test_resnet")
    assert same.scout is not None
    assert not list(same.scout.project.parameters())


def test_a_model_with_a_scout_is_saved_whole(tmp_path: Path) -> None:
    model = recipe(scout="test_efficientnet", aggregate="attention", location="joint").eval()
    model.plan = replace(model.plan, view=(32, 32), first_view=(64, 64))
    model.multilabel = True
    loaded = load(save(model, tmp_path / "m.safetensors"))
    assert loaded.multilabel
    assert loaded.plan == model.plan
    image = open_array(noise(150, 150, 3))
    (here,), (there,) = walk(model, [image]), walk(loaded, [image])
    np.testing.assert_array_equal(here.logits, there.logits)


def test_labels_that_do_not_exclude_one_another_have_probabilities_of_their_own() -> None:
    model = fake_model(Plan(view=(16, 16)))
    image = open_array(noise(64, 64))
    (single,) = walk(model, [image])
    model.multilabel = True
    (found,) = walk(model, [image])
    np.testing.assert_array_equal(found.logits, single.logits)
    np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-found.logits)))
    assert found.label == single.label
    assert type(found).from_json(found.to_json()) == found


def test_the_location_module_teaches_the_backbone_if_told_to() -> None:
    for location in ("detached", "joint"):
        model = recipe(location=location).train()
        look = model.look(torch.rand(2, 3, 64, 64))
        model.locate(look, Grid(4, 4, 0.25)).square().sum().backward()
        taught = any(p.grad is not None for p in model.backbone.parameters())
        assert taught == (location == "joint")


def test_the_temperature_flattens_while_training_alone() -> None:
    model = fake_model(FINE, sharpness=3.0)
    look = model.look(torch.rand(1, 1, 32, 32) * 200)
    plain = model.locate(look, Grid(4, 4, 0.25))
    model.temperature = 4.0
    torch.testing.assert_close(model.locate(look, Grid(4, 4, 0.25)), plain)
    model.train()
    torch.testing.assert_close(model.locate(look, Grid(4, 4, 0.25)), plain / 4)


@pytest.mark.parametrize(
    "options", [{"location": "free"}, {"scout": "no_such_net"}, {"scout_stride": 0}], ids=str
)
def test_senseless_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        recipe(**options)


def test_a_fine_map_serves_as_many_cells() -> None:
    map_MChw = torch.rand(1, 2, 30, 30)
    torch.testing.assert_close(to_grid(map_MChw, Grid(30, 30, 1 / 30)), map_MChw)
    # Cells of which three lie between two pixels of the map go linearly from one to the other.
    ramp = torch.arange(10.0).expand(1, 1, 10, 10)
    got = to_grid(ramp, Grid(30, 30, 1 / 30))[0, 0, 15]
    expected = (torch.arange(30.0) + 0.5) / 3 - 0.5
    torch.testing.assert_close(got, expected.clamp(0, 9))


@pytest.mark.parametrize("pixels", [30, 28, 15])
def test_a_planted_target_is_found_among_900_cells(pixels: int) -> None:
    """A map with one odd pixel; the module learns to point at its cell on other maps."""
    torch.manual_seed(0)
    grid = Grid(30, 30, 1 / 30)
    module = ContextLocation(6, FEATURES, width=16)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    pattern = torch.tensor([2.0, -2.0, 0.0, 2.0, 0.0, -2.0])

    def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        cell_M = torch.randint(900, (count,))
        map_MChw = torch.randn(count, 6, pixels, pixels) * 0.5
        row_M, column_M = ((at + 0.5) / 30 * pixels for at in (cell_M // 30, cell_M % 30))
        map_MChw[torch.arange(count), :, row_M.long(), column_M.long()] += pattern
        return map_MChw, cell_M

    context = torch.zeros(32, FEATURES)
    for _ in range(60):
        map_MChw, cell_M = batch(32)
        optimizer.zero_grad()
        F.cross_entropy(module(map_MChw, context, grid), cell_M).backward()
        optimizer.step()
    map_MChw, cell_M = batch(32)
    found_M = module(map_MChw, context, grid).argmax(dim=1)
    # Where a pixel of the map serves several cells, the right one of them is anyone's guess.
    off = torch.stack([found_M // 30 - cell_M // 30, found_M % 30 - cell_M % 30]).abs().amax(0)
    assert (off <= (0 if pixels == 30 else 30 // pixels)).float().mean() > 0.9
