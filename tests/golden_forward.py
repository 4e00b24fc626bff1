"""Golden vectors of whole models (kind f): forward passes and a training step."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tf_names
import torch
from numpy.typing import NDArray
from shared_data import SHARED
from torch import Tensor, nn

from tnet.adapters.array import open_array
from tnet.geometry import Grid, Region
from tnet.location import to_grid
from tnet.model import TNet
from tnet.objective import Evidence, Rule, loss
from tnet.plan import Plan, Step
from tnet.recipes import build
from tnet.trace import Trace
from tnet.traversal import traverse

Vectors = Mapping[str, NDArray[Any]]


def official_view(pixels: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return a whole image resized as the released code does."""
    pyramid = open_array(pixels)
    whole = Region(0, 0, pixels.shape[1], pixels.shape[0])
    return pyramid.read(whole, size, resampling="official", dtype=np.float32)


def evaluation(z: Vectors) -> None:
    z = _whole(z)
    model = _model(z)
    model.eval()
    recorder = _Recorder(model.location, z)
    model.location = recorder
    plan = _plan(z, model)
    images = [open_array(image) for image in z["images_uint8"]]
    with torch.no_grad():
        trace = traverse(model, images, plan, micro_batch=None)
    levels = 1 + int(trace.level_G.max())
    for level in range(levels):
        _check_level(z, trace, recorder, level)
    _check_views(z, trace, images, plan, model)
    if "features_avg" in z:
        _close(trace.aggregate_BD, z["features_avg"], 1e-4, 2e-4)
    if "feature_weights" in z:
        weights = trace.weight_G.reshape(-1)
        order = torch.argsort(trace.image_G, stable=True)
        torch.testing.assert_close(
            weights[order], _f32(z["feature_weights"]).flatten(), rtol=0, atol=1e-5
        )
    _close(trace.logits_BK, z["logits"], 1e-4, 2e-4)


def training_step(z: Vectors) -> None:
    z = _whole(z)
    # In float64 only the released code's own rounding is left of the difference.
    model = _model(z).double()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    plan = _plan(z, model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.train()
    trace = traverse(model, [open_array(image) for image in z["images_uint8"]], plan)
    own_GK = torch.cat(
        [model.classifier(trace.feature_GD[trace.level_G == i]) for i in trace.level_G.unique()]
    )
    rule = Rule(
        reinforce=float(z["reinforce_w"]),
        main_ce=float(z["ce_weight"]),
        main_reinforce=float(z["reinf_weight"]),
        cap=int(z["cap"]) if int(z["cap"]) >= 0 else None,
        likelihood="marginal",
    )
    evidence = Evidence(trace.logits_BK, own_GK, trace.marginal_G, trace.image_G, trace.level_G)
    labels = torch.from_numpy(z["labels"]).long()
    got = loss(evidence, labels, _f32(z["baseline_before"]).double(), rule)
    _close(got.total, z["loss"], 1e-5, 1e-5)
    _close(got.baseline, z["baseline_after"], 1e-5, 1e-6)
    for level in range(1, 4):
        rows = own_GK[trace.level_G == level - 1]
        _close(rows, z[f"logits_per_feature_{level}"], 1e-4, 2e-4)
    for level in range(1, 3):
        rows = trace.marginal_G[trace.level_G == level]
        _close(rows, z[f"logprobs_per_feature_{level}"].flatten(), 1e-4, 1e-5)
    got.total.backward()
    _check_step(z, model, before)


def _check_step(z: Vectors, model: TNet, before: dict[str, Tensor]) -> None:
    """Compare gradients, batch norm statistics, and Adam's step with the golden gradients."""
    parameters = dict(model.named_parameters())
    state = model.state_dict()
    golden = {
        tf_names.ours(k.removeprefix("grad:")): (k, v)
        for k, v in z.items()
        if k.startswith("grad:")
    }
    assert set(golden) == set(parameters)
    for key, (name, value) in golden.items():
        wanted = tf_names.to_torch(name, value, parameters[key])
        assert parameters[key].grad is not None, key
        torch.testing.assert_close(
            parameters[key].grad, wanted, rtol=1e-4, atol=5e-5, msg=partial(_named, key)
        )
        parameters[key].data.copy_(before[key])
        parameters[key].grad = wanted
    # Keras adds epsilon to the uncorrected root: at the first step 1e-7 / sqrt(1 - 0.999).
    adam = torch.optim.Adam(parameters.values(), lr=float(z["lr"]), eps=1e-7 / 0.001**0.5)
    adam.step()
    for name in (k for k in z if k.startswith("after:")):
        key = tf_names.ours(name.removeprefix("after:"))
        wanted = tf_names.to_torch(name, z[name], state[key])
        torch.testing.assert_close(
            state[key], wanted, rtol=1e-5, atol=2e-6, msg=partial(_named, key)
        )


def _whole(z: Vectors) -> Vectors:
    """Add weights and images to a file that shares those of its evaluation."""
    if "images_uint8" in z and ("var_names" in z or any(k.startswith("w:") for k in z)):
        return z
    size = re.findall(r"_(\d+)_3lvl", str(z["name"]))[0]
    places = (Path(str(z["folder"])), SHARED / "golden" / "tnet")
    path = next(p for p in (f / f"f_tiny_fmow_eval_{size}_3lvl.npz" for f in places) if p.exists())
    with np.load(path) as other:
        kept = {k: other[k] for k in other if not re.match(r"l\d+_|logits|features_|topk|lpg", k)}
    return kept | dict(z)


def _f32(value: Any) -> Tensor:
    return torch.from_numpy(np.array(value, dtype=np.float32))


def _named(key: str, message: str) -> str:
    return f"{key}: {message}"


def _close(got: Tensor, value: Any, rtol: float, atol: float) -> None:
    torch.testing.assert_close(got.to(torch.float32), _f32(value), rtol=rtol, atol=atol)


def _model(z: Vectors) -> TNet:
    """Build the model that a file is about and give it the file's variables."""
    name = str(z["name"])
    count = z["logits"].shape[1]
    classes = [str(i) for i in range(count)]
    width = float(z["width"]) if "width" in z else (0.25 if "_tiny_" in name else 1.0)
    if "imagenet" in name or "bagnet" in name:
        model = build("official_imagenet", classes=classes, dropout=0.0)
    elif "cub" in name:
        variant = (re.findall(r"_(b\d)_", name) or ["b0"])[0]
        model = build("official_cub", classes=classes, variant=variant, width=width, drop_path=0.0)
    else:
        cells = z["l1_probs"].shape[1] if "l1_probs" in z else 9
        tap = "lg5x5" if cells == 25 else "lg3x3"
        model = build("official_fmow", classes=classes, width=width, tap=tap, drop_path=0.0)
    values = {k.removeprefix("w:"): v for k, v in z.items() if k.startswith("w:")}
    tf_names.load(model, values or tf_names.seeded(z))
    return model


def _plan(z: Vectors, model: TNet) -> Plan:
    base = int(z["base_res"]) if "base_res" in z else model.plan.view[0]
    if "_tiny_fmow" in str(z["name"]) and "base_res" not in z:
        base = 176
    step = model.plan.steps[0]
    if "grid" in z:
        step = Step(int(z["grid"][0]), int(z["grid"][1]), float(z["overlap"]), 1)
    counts = z["lpg"] if "lpg" in z else _counts(z)
    steps = tuple(replace(step, glimpses=int(k)) for k in np.atleast_1d(counts))
    return replace(model.plan, view=(base, base), steps=steps)


def _counts(z: Vectors) -> list[int]:
    masks = sorted(k for k in z if re.fullmatch(r"l\d+_mask", k))
    if masks:
        return [
            int(z[k].reshape(-1, z[k.replace("mask", "probs")].shape[1])[0].sum()) for k in masks
        ]
    # A training step stores its log-probabilities alone: rows per level.
    rows = [len(z[k]) for k in sorted(z) if k.startswith("logprobs_per_feature_")]
    images = len(z["images_uint8"])
    return [now // last for last, now in zip([images, *rows], rows, strict=False)]


class _Recorder(nn.Module):
    """A location module that keeps what went through it, or says what a file forces it to."""

    def __init__(self, inside: nn.Module, z: Vectors) -> None:
        super().__init__()
        self.inside = inside
        self.tap: Any = inside.tap
        self.maps: list[Tensor] = []
        self.forced = [_f32(z[k]) for k in sorted(z) if re.fullmatch(r"forced_probs_\d+", k)]

    def forward(self, map_MChw: Tensor, context_MD: Tensor, grid: Grid) -> Tensor:
        self.maps.append(to_grid(map_MChw, grid, self.tap))
        if self.forced:
            return self.forced[len(self.maps) - 1].log()
        return self.inside(map_MChw, context_MD, grid)


def _check_level(z: Vectors, trace: Trace, recorder: _Recorder, level: int) -> None:
    rows = trace.level_G == level
    name = f"l{level + 1}"
    positions = [v.position for v in trace.visits if v.level == level]
    np.testing.assert_allclose(positions, z[f"{name}_pos_yxs"])
    for key, got in (
        ("backbone_feature", trace.look_GD[rows]),
        ("posmod_feature", trace.feature_GD[rows]),
    ):
        if f"{name}_{key}" in z:
            _close(got.flatten(), z[f"{name}_{key}"].flatten(), 1e-4, 2e-4)
    if f"{name}_loc_features" in z:
        got = recorder.maps[level].permute(0, 2, 3, 1)
        _close(got, z[f"{name}_loc_features"], 1e-4, 2e-4)
    if f"{name}_mask" in z:
        choice = trace.choices[level]
        probability = choice.logits_PN.softmax(1)
        if f"{name}_probs" in z and not recorder.forced:
            torch.testing.assert_close(probability, _f32(z[f"{name}_probs"]), rtol=1e-4, atol=1e-5)
        mask = np.zeros(probability.shape, dtype=bool)
        place = {parent: row for row, parent in enumerate(choice.parents)}
        for visit in choice.visits:
            assert visit.parent is not None
            mask[place[visit.parent], visit.cell] = True
        np.testing.assert_array_equal(mask, z[f"{name}_mask"].reshape(mask.shape))


def _check_views(z: Vectors, trace: Trace, images: list[Any], plan: Plan, model: TNet) -> None:
    """Compare each view's mean, deviation and corners."""
    for level in range(1 + int(trace.level_G.max())):
        key = f"l{level + 1}_view_mean_std_corner"
        if key not in z:
            continue
        found = []
        for visit in (v for v in trace.visits if v.level == level):
            view = images[visit.image].read(
                visit.region,
                plan.view,
                resampling="official",
                valid=visit.valid,
                fill=model.expects.mean[0],
                dtype=np.float32,
            )
            seen = (view - 127.5) / 127.5
            height = seen.shape[0]
            corners = (seen[0, 0, 0], seen[-1, -1, 2], seen[100 % height, 37, 1])
            found.append([seen.mean(), seen.std(), *corners])
        np.testing.assert_allclose(found, z[key], atol=2e-5)
