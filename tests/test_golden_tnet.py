"""Every vector made by running the released TNet code must come out of ours.

The vectors are the .npz files in the folder ``tnet`` of TNET_GOLDEN (by default the team's
``../shared/golden``), whatever files lie there; a file of an unknown kind fails.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import golden_forward
import numpy as np
import pytest
import tf_names
import torch
from numpy.typing import NDArray
from shared_data import SHARED, shared_folder
from torch import Tensor, nn

from tnet.aggregate import FeatureWeighting
from tnet.descent import Journey, Visit, descend
from tnet.geometry import Grid, Region
from tnet.location import ContextLocation, SqueezeLocation, Tap, l2_normalised
from tnet.model import Classifier
from tnet.objective import Evidence, Rule, loss
from tnet.plan import Plan, Step
from tnet.position import Position, sinusoidal_code
from tnet.sampling import choose, marginal_log_probs

Vectors = Mapping[str, NDArray[Any]]

FOLDER = Path(os.environ.get("TNET_GOLDEN") or SHARED / "golden") / "tnet"
FILES = sorted(FOLDER.glob("*.npz"))


def tensor(z: Vectors, key: str) -> Tensor:
    return torch.from_numpy(np.asarray(z[key], dtype=np.float32))


def variables(z: Vectors, prefix: str = "w:") -> dict[str, NDArray[Any]]:
    return {k.removeprefix(prefix): z[k] for k in z if k.startswith(prefix)}


def fill(module: nn.Module, values: Vectors, rename: Callable[[str], str]) -> None:
    """Give a module all its parameters from variables of the released code."""
    state = module.state_dict()
    renamed = {rename(name): name for name in values}
    assert set(renamed) == set(state)
    module.load_state_dict(
        {key: tf_names.to_torch(name, values[name], state[key]) for key, name in renamed.items()}
    )


def check_gradients(module: nn.Module, z: Vectors, rename: Callable[[str], str]) -> None:
    gradients = {rename(name): (name, value) for name, value in variables(z, "g:").items()}
    assert gradients
    for key, parameter in module.named_parameters():
        name, value = gradients[key]
        assert parameter.grad is not None
        wanted = tf_names.to_torch(name, value, parameter)
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=2e-5)


# (a) the positional code


def positional_encoding(z: Vectors) -> None:
    position = tensor(z, "pos_yxs")
    codes = [key for key in z if key.startswith("pe_c")]
    assert codes
    for key in codes:
        channels, period = (int(number) for number in re.findall(r"\d+", key))
        got = sinusoidal_code(position, channels, float(period))
        difference = (got - tensor(z, key)).abs().amax(dim=1)
        size = position.abs().amax(dim=1)
        allowed = torch.where(size <= 100, 1e-5, torch.where(size <= 1000, 1e-4, 6e-4))
        assert (difference <= allowed).all(), key
        assert (got[:, 6 * (channels // 6) :] == 0).all()


def grid_positions(z: Vectors) -> None:
    grids = sorted({match[1] for key in z if (match := re.fullmatch(r"grid_h_(.+)", key))})
    assert grids
    for name in grids:
        rows, columns = (int(n) for n in name.split("x"))
        cells = [Grid(rows, columns, 0.5).row_column(i) for i in range(rows * columns)]
        for got, key in zip(
            zip(*cells, strict=True), (f"grid_h_{name}", f"grid_w_{name}"), strict=True
        ):
            np.testing.assert_array_equal(z[key], np.tile(got, (len(z[key]), 1)))
        if f"walk_{name}_mask_l1to2" in z:
            _walk_positions(z, name, rows, columns)


def _walk_positions(z: Vectors, name: str, rows: int, columns: int) -> None:
    front = _roots(len(z[f"walk_{name}_mask_l1to2"]), 1024, 1024)
    for level in (1, 2):
        mask = z[f"walk_{name}_mask_l{level}to{level + 1}"]
        front = _forced_step(front, mask, Grid(rows, columns, 0.5, "official"))
        got = [visit.position for visit in front]
        np.testing.assert_allclose(got, z[f"walk_{name}_pos_l{level + 1}"])


class Blank:
    """As much of an image as choosing regions needs."""

    mpp = None
    levels = ()

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height


def _roots(count: int, width: int, height: int) -> list[Visit]:
    region = Region(0, 0, width, height)
    return [Visit(i, 0, region, None, (0.0, 0.0, 0.0)) for i in range(count)]


def _forced_step(front: list[Visit], mask: NDArray[Any], grid: Grid) -> list[Visit]:
    """Go one level down to the cells of a mask, through the code of the walk."""
    mask = mask.reshape(len(front), grid.cells)
    step = Step(grid.rows, grid.columns, grid.patch, int(mask[0].sum()))
    plan = Plan(
        steps=(step,) * 3,
        rule=grid.rule,
        outside="zero",
        positions="cells",
        revisit=True,
    )
    images = 1 + max(visit.image for visit in front)
    region = Region(0, 0, 1, 1)
    choice = descend(
        front,
        0,
        torch.from_numpy(np.where(mask, 5.0, 0.0)),
        None,
        Journey(
            [Blank(1 << 20, 1 << 20)] * images,  # type: ignore[list-item]
            plan,
            "greedy",
            [region] * images,
            [np.array([[0.0, 0.0, 1.0, 1.0]])] * images,
            [None] * images,
        ),
    )
    return choice.visits


# (b) geometry and the view


def candidate_boxes(z: Vectors) -> None:
    cases = [key for key in z if key.endswith("_boxes")]
    assert cases
    for key in cases:
        match = re.fullmatch(r"g(\d+)x(\d+)_o([\dp]+)_(\d+)x(\d+)_boxes", key)
        assert match, key
        rows, columns, height, width = (int(match[i]) for i in (1, 2, 4, 5))
        grid = Grid(rows, columns, float(match[3].replace("p", ".")), "official")
        boxes = _boxes(grid.children(Region(0, 0, width, height)))
        np.testing.assert_array_equal(boxes, z[key], err_msg=key)
        outside = np.stack(
            [
                np.maximum(-boxes[:, 0], 0),
                np.maximum(-boxes[:, 1], 0),
                np.maximum(boxes[:, 2] - height, 0),
                np.maximum(boxes[:, 3] - width, 0),
            ],
            axis=1,
        )
        np.testing.assert_array_equal(outside, z[key.replace("_boxes", "_padTLBR")])


def _boxes(regions: list[Region]) -> NDArray[np.int64]:
    """Return y0, x0, y1, x1 of each region."""
    boxes = np.array([[r.y, r.x, r.bottom, r.right] for r in regions])
    assert (boxes == boxes.round()).all()
    return boxes.astype(np.int64)


def nested_walks(z: Vectors) -> None:
    cases = sorted({re.split(r"_(?:mask|boxes|valid|pos)_", key)[0] for key in z})
    for case in cases:
        match = re.search(r"_(\d+)(?:x(\d+))?_g?(\d+)x(\d+)_o([\dp.]+)", case)
        assert match, case
        height, width = int(match[1]), int(match[2] or match[1])
        overlap = float(match[5].replace("p", "."))
        grid = Grid(int(match[3]), int(match[4]), overlap, "official")
        found = {
            (m[1], int(m[2])): key
            for key in z
            if (m := re.fullmatch(re.escape(case) + r"_(\w+?)_l?(\d+)(?:to\d+)?", key))
        }
        levels = sorted(level for kind, level in found if kind == "mask")
        assert levels, case
        front = _roots(_images(z, found, grid), width, height)
        for level in levels:
            front = _forced_step(front, z[found["mask", level]], grid)
            after = level + 1
            regions = [visit.region for visit in front]
            np.testing.assert_array_equal(_boxes(regions), z[found["boxes", after]], err_msg=case)
            shown = [_shown(visit, width, height) for visit in front]
            np.testing.assert_array_equal(_boxes(shown), z[found["valid", after]], err_msg=case)
            positions = [visit.position for visit in front]
            np.testing.assert_allclose(positions, z[found["pos", after]], err_msg=case)


def _images(z: Vectors, found: dict[tuple[str, int], str], grid: Grid) -> int:
    return int(np.asarray(z[found["mask", 1]]).size // grid.cells)


def _shown(visit: Visit, width: int, height: int) -> Region:
    """Return what of a crop is not zero."""
    assert visit.valid is not None
    inside = visit.region.intersection(visit.valid)
    assert inside is not None
    shown = inside.intersection(Region(0, 0, width, height))
    assert shown is not None
    return shown


def resize(z: Vectors) -> None:
    cases = [key for key in z if key.endswith("_in_uint8")]
    assert cases
    for key in cases:
        wanted = z[key.replace("_in_uint8", "_out")]
        pixels = (z[key].astype(np.float32) / 255 * 2 - 1).astype(np.float32)
        height, width = wanted.shape
        got = golden_forward.official_view(pixels[:, :, None], (width, height))[:, :, 0]
        np.testing.assert_allclose(got, wanted, atol=5e-6, err_msg=key)


# (c) the location module


def location(z: Vectors) -> None:
    x = tensor(z, "x").permute(0, 3, 1, 2)
    grid = Grid(x.shape[2], x.shape[3], 0.5)
    as_it_is = Tap(0, None, 1)
    module: SqueezeLocation | ContextLocation
    if "context" in z:
        context = tensor(z, "context").flatten(1)
        width = z["w:conv2d.bias"].size
        module = ContextLocation(x.shape[1], context.shape[1], width=width, tap=as_it_is)
    else:
        context = torch.zeros(len(x), 1)
        module = SqueezeLocation(x.shape[1], tap=as_it_is)
    fill(module, variables(z), tf_names.location)
    x.requires_grad_()
    raw = module(x, context, grid)
    torch.testing.assert_close(raw, tensor(z, "raw_logits"), rtol=1e-4, atol=1e-5)
    module.normalise = True
    logits = module(x, context, grid)
    torch.testing.assert_close(logits, tensor(z, "normalized_logits"), rtol=0, atol=1e-6)
    torch.testing.assert_close(logits.softmax(1), tensor(z, "probs"), rtol=0, atol=1e-6)
    scalar = (tensor(z, "grad_seed") * torch.log(logits.softmax(1) + 1e-10)).sum()
    torch.testing.assert_close(scalar, tensor(z, "train_scalar"), rtol=1e-5, atol=1e-5)
    scalar.backward()
    check_gradients(module, z, tf_names.location)
    assert (x.grad is None) == bool(z["input_gradient_is_none"])


# (d) the other modules


def position_module(z: Vectors) -> None:
    features = tensor(z, "features").flatten(1)
    code = tensor(z, "f_pos")
    weight = z["w:linear.kernel"]
    form: Any = "concat" if weight.shape[0] == features.shape[1] + code.shape[1] else "add"
    module = Position(features.shape[1], code.shape[1], form=form)
    fill(
        module,
        variables(z),
        lambda name: "linear." + {"kernel": "weight", "bias": "bias"}[name.split(".")[1]],
    )
    got = module(features, tensor(z, "pos_yxs"))
    torch.testing.assert_close(got, tensor(z, "out").flatten(1), rtol=1e-4, atol=1e-4)


def _weighting(name: str) -> str:
    part, _, leaf = name.rpartition(".")
    return f"{tf_names.WEIGHTING[part]}.{'weight' if leaf == 'kernel' else 'bias'}"


def feature_weighting(z: Vectors) -> None:
    features = tensor(z, "features").requires_grad_()
    module = FeatureWeighting(features.shape[2])
    fill(module, variables(z), _weighting)
    out, weights = module(features, torch.ones(features.shape[:2], dtype=torch.bool))
    torch.testing.assert_close(out, tensor(z, "out"), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights, tensor(z, "weights").squeeze(2), rtol=0, atol=2e-6)
    if "grad_seed" in z:
        (out * tensor(z, "grad_seed")).sum().backward()
        torch.testing.assert_close(features.grad, tensor(z, "grad_features"), rtol=1e-4, atol=1e-5)
        check_gradients(module, z, _weighting)


def classifier(z: Vectors) -> None:
    features, logits = tensor(z, "features"), tensor(z, "logits")
    module = Classifier(features.shape[1], logits.shape[1], dropout=0.5).eval()
    fill(
        module,
        variables(z),
        lambda name: "linear." + {"kernel": "weight", "bias": "bias"}[name.split(".")[1]],
    )
    torch.testing.assert_close(module(features), logits, rtol=1e-4, atol=1e-5)


# (e) selection and the loss


def selection(z: Vectors) -> None:
    cases = sorted(key.removesuffix("_probs") for key in z if re.search(r"_k\d+_probs$", key))
    assert cases
    for case in cases:
        probability = tensor(z, f"{case}_probs")
        count, images = int(z[f"{case}_k"]), int(z[f"{case}_batch"])
        cells = torch.tensor([sorted(choose(row.log(), count)) for row in probability])
        mask = torch.zeros_like(probability, dtype=torch.bool).scatter(1, cells, True)
        np.testing.assert_array_equal(mask.flatten().numpy(), z[f"{case}_mask"])
        attended = mask.reshape(images, -1).float()
        np.testing.assert_array_equal(attended.numpy(), z[f"{case}_attended_locations"])
        found = attended.sum(dim=1, keepdim=True)
        np.testing.assert_array_equal(found.numpy(), z[f"{case}_location_num_per_img"])
        each = marginal_log_probs(probability.log(), cells).reshape(-1, 1)
        wanted = tensor(z, f"{case}_logprobs_per_feature")
        torch.testing.assert_close(each, wanted, rtol=0, atol=1e-5)
        together = each.reshape(images, -1).sum(dim=1, keepdim=True)
        wanted = tensor(z, f"{case}_location_log_probs")
        torch.testing.assert_close(together, wanted, rtol=1e-6, atol=2e-5)
    for key in (key for key in z if key.startswith("ties_")):
        count = int(re.findall(r"_k(\d+)_", key)[0])
        cells_of_ties = choose(torch.zeros(z[key].size), count)
        np.testing.assert_array_equal(np.flatnonzero(z[key]), sorted(cells_of_ties))


def total_loss(z: Vectors) -> None:
    levels, images, samples = int(z["levels"]), int(z["B"]), int(z["dup_num_samples"])
    walks = images * samples
    per_level = [int(k) for k in np.cumprod([1, *z["lpg"]])]
    logits = tensor(z, "logits").requires_grad_()
    own = [tensor(z, f"feature_logits_{i + 1}").requires_grad_() for i in range(levels)]
    raw = [tensor(z, f"raw_location_logits_{i + 1}").requires_grad_() for i in range(levels - 1)]
    log_probs = [torch.zeros(walks)]
    for i, leaf in enumerate(raw):
        cells = torch.from_numpy(np.argwhere(z[f"mask_{i + 1}"])[:, 1].reshape(len(leaf), -1))
        log_probs.append(marginal_log_probs(l2_normalised(leaf), cells).flatten())
        wanted = tensor(z, f"logprobs_per_feature_{i + 1}").flatten()
        torch.testing.assert_close(log_probs[-1], wanted, rtol=1e-5, atol=1e-5)
    vector = tensor(z, "features_prime").requires_grad_() if "features_prime" in z else None
    evidence = Evidence(
        logits,
        torch.cat(own),
        torch.cat(log_probs),
        torch.cat([torch.arange(walks).repeat_interleave(n) for n in per_level]),
        torch.cat([torch.full((walks * n,), i) for i, n in enumerate(per_level)]),
        vector,
    )
    cap = int(z["cap"])
    rule = Rule(
        reinforce=float(z["reinforce_w"]),
        main_ce=float(z["ce_weight"]),
        main_reinforce=float(z["reinf_weight"]),
        cap=None if cap < 0 else cap,
        contrastive=float(z["contrastive_lambda"]) if vector is not None else 0.0,
        margin=float(z["contrastive_margin"]) if vector is not None else 0.4,
        likelihood="marginal",
    )
    before = tensor(z, "baseline_before")
    got = loss(evidence, torch.from_numpy(z["labels"]).long(), before, rule)
    # The released code does not divide by the number of Monte-Carlo samples; ours does.
    torch.testing.assert_close(got.total * samples, tensor(z, "loss"), rtol=1e-5, atol=1e-5)
    step = (got.baseline - rule.momentum * before) * samples
    torch.testing.assert_close(
        rule.momentum * before + step, tensor(z, "baseline_after"), rtol=1e-5, atol=1e-6
    )
    (got.total * samples).backward()
    _check_leaf(logits, z, "logits")
    for i, leaf in enumerate(own):
        _check_leaf(leaf, z, f"feature_logits_{i + 1}")
    for i, leaf in enumerate(raw):
        _check_leaf(leaf, z, f"raw_location_logits_{i + 1}")
    if vector is not None:
        _check_leaf(vector, z, "features_prime")


def _check_leaf(leaf: Tensor, z: Vectors, name: str) -> None:
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, tensor(z, f"grad_{name}"), rtol=1e-4, atol=1e-6)


KINDS: dict[str, Callable[[Vectors], None]] = {
    r"a_positional_encoding": positional_encoding,
    r"a_grid_positions": grid_positions,
    r"b_candidate_boxes": candidate_boxes,
    r"b_nested_walks": nested_walks,
    r"b_resize": resize,
    r"c_location_.*": location,
    r"d_posmodule_.*": position_module,
    r"d_feature_weighting_.*": feature_weighting,
    r"d_classifier_.*": classifier,
    r"e_selection.*": selection,
    r"e_loss_.*": total_loss,
    r"f_.*_trainstep_.*": golden_forward.training_step,
    r"f_.*": golden_forward.evaluation,
}


def test_the_vectors_are_there() -> None:
    if "TNET_GOLDEN" not in os.environ:
        shared_folder("golden", "tnet")
    assert FILES, f"no golden vectors in {FOLDER}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    for pattern, check in KINDS.items():
        if re.fullmatch(pattern, path.stem):
            with np.load(path) as z:
                place = {"name": np.array(path.stem), "folder": np.array(str(FOLDER))}
                check({key: z[key] for key in z.files} | place)
            return
    pytest.fail(f"{path.name} is of no kind that this test understands")
