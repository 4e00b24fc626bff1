"""The model that a training begins with: norms, pixels, and where its weights come from."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from tnet.backbones.generic import TimmBackbone
from tnet.bundle import save
from tnet.errors import DataError, UsageError
from tnet.scripts.building import Built, Traits, built
from tnet.scripts.config import Config
from tnet.scripts.planning import Sizes

SIZES = Sizes(side=256, pixels=256**2, mpp=0.5, largest=128)


def images(bands: int = 3, dtype: str = "uint8", classes: tuple[str, ...] = ("a", "b")) -> Traits:
    return Traits(
        classes=classes,
        multilabel=False,
        bands=bands,
        dtype=dtype,
        sizes=SIZES,
        statistics=lambda: ((7.0,) * bands, (2.0,) * bands),
    )


def build(of: Traits | None = None, **values: Any) -> Built:
    usual = {"backbone": "test_resnet", "view": 32}
    return built(Config().changed(usual | values), of or images())


def network(model: Any) -> Any:
    assert isinstance(model.backbone, TimmBackbone)
    return model.backbone.model


def checkpoint(path: Path, **options: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    state = dict(timm.create_model("test_resnet", **options).state_dict())
    torch.save(state, path)
    return state


def test_from_scratch_norms_are_of_groups_and_pixels_of_the_data() -> None:
    made = build(images(bands=5, dtype="uint16"), batch=2)
    assert made.freeze == "none"
    assert any(isinstance(m, torch.nn.GroupNorm) for m in made.model.modules())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in made.model.modules())
    expects = made.model.expects
    assert (expects.bands, expects.dtype, expects.mpp) == (5, "uint16", 0.5)
    assert expects.mean == (7.0,) * 5
    assert any("group norms" in note for note in made.notes)


@pytest.mark.parametrize(("batch", "freeze"), [(4, "norms"), (8, "none")])
def test_small_batches_leave_learned_statistics_alone(
    tmp_path: Path, batch: int, freeze: str
) -> None:
    checkpoint(tmp_path / "w.pth", num_classes=10)
    made = build(pretrained=str(tmp_path / "w.pth"), batch=batch)
    assert made.freeze == freeze
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in made.model.modules())


def test_a_checkpoint_fills_the_backbone_and_says_what_is_left_over(tmp_path: Path) -> None:
    state = checkpoint(tmp_path / "w.pth", num_classes=10)
    made = build(pretrained=str(tmp_path / "w.pth"))
    for key, value in network(made.model).state_dict().items():
        assert torch.equal(value, state[key]), key
    assert any("2 arrays of it are not used" in note for note in made.notes)


def test_colours_become_other_bands(tmp_path: Path) -> None:
    state = checkpoint(tmp_path / "w.pth", num_classes=0)
    made = build(images(bands=6), pretrained=str(tmp_path / "w.pth"))
    weight = network(made.model).conv1[0].weight
    assert weight.shape[1] == 6
    torch.testing.assert_close(weight.sum(dim=1), state["conv1.0.weight"].sum(dim=1))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path / "w.pth", num_classes=0)
    with pytest.raises(DataError, match="does not fit 'resnet18'"):
        build(backbone="resnet18", pretrained=str(tmp_path / "w.pth"))
    with pytest.raises(DataError, match="there is no such file"):
        build(pretrained=str(tmp_path / "none.pth"))
    save(build().model, tmp_path / "m.safetensors")
    with pytest.raises(DataError, match=r"does not fit the backbone: \d+ of its \d+ arrays"):
        build(backbone="resnet18", pretrained=str(tmp_path / "m.safetensors"), norm="batch")
    with pytest.raises(UsageError, match="give --from or --pretrained"):
        build(pretrained="x", start="y")


def test_a_model_to_start_from_brings_options_weights_and_plan(tmp_path: Path) -> None:
    first = build(aggregate="weighting", glimpses="3", seed=4).model
    save(first, tmp_path / "model.safetensors")
    made = built(Config().changed({"start": str(tmp_path)}), images())
    assert made.model.recipe is not None
    assert made.model.recipe[1]["aggregate"] == "weighting"
    assert made.model.plan == first.plan
    for key, value in made.model.state_dict().items():
        assert torch.equal(value, first.state_dict()[key]), key


def test_a_curriculum_keeps_the_weights_and_changes_the_plan(tmp_path: Path) -> None:
    first = build(glimpses="3", seed=9).model
    save(first, tmp_path / "model.safetensors")
    told = {"start": str(tmp_path), "glimpses": "3,2"}
    made = built(Config().changed(told), images())
    assert [step.glimpses for step in made.model.plan.steps] == [3, 2]
    assert made.model.plan.view == (32, 32)
    assert torch.equal(made.model.classifier.linear.weight, first.classifier.linear.weight)


def test_other_classes_get_a_new_classifier(tmp_path: Path) -> None:
    first = build(seed=9).model
    save(first, tmp_path / "model.safetensors")
    made = built(Config().changed({"start": str(tmp_path)}), images(classes=("x", "y")))
    assert made.model.classes == ("x", "y")
    assert not torch.equal(made.model.classifier.linear.weight, first.classifier.linear.weight)
    assert any("new: 2 arrays of classifier" in note for note in made.notes)


def test_tiles_freeze_the_backbone_and_weigh_by_attention() -> None:
    made = build(model="tiles")
    assert made.freeze == "backbone"
    assert made.model.recipe is not None
    assert made.model.recipe[1]["aggregate"] == "attention"
    assert made.model.plan.tiles == "native"
    assert any("has learned nothing" in note for note in made.notes)


def test_freezing_what_has_learned_nothing_is_told() -> None:
    assert any("frozen it never will" in note for note in build(freeze="backbone").notes)
    assert not any("frozen it" in note for note in build().notes)


def test_the_same_seed_makes_the_same_weights() -> None:
    one, same, other = (build(seed=seed).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_an_option_of_another_recipe_is_refused() -> None:
    with pytest.raises(UsageError, match="has no option 'backbone'"):
        build(recipe="official_cub")
