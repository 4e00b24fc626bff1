"""The released models' variable names and layouts -> ours; used by the golden tests alone."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_LEAF = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

_FIRST_BLOCK = {
    "depthwise.conv2d": "conv_dw",
    "depthwise.batch_norm": "bn1",
    "bottleneck.conv2d": "conv_pw",
    "bottleneck.batch_norm": "bn2",
}
_BLOCK = {
    "expand.conv2d": "conv_pw",
    "expand.batch_norm": "bn1",
    "depthwise.conv2d": "conv_dw",
    "depthwise.batch_norm": "bn2",
    "bottleneck.conv2d": "conv_pwl",
    "bottleneck.batch_norm": "bn3",
}
_SE = {"se.conv2d_1": "se.conv_reduce", "se.conv2d_2": "se.conv_expand"}
_BAGNET = {
    "comp_1.conv2d": "reduce",
    "comp_2.conv2d": "spread",
    "comp_3.conv2d": "expand",
    "shortcut_comp.conv2d": "shortcut",
}
_FIXED = {
    "feature_extraction.stem.conv2d": "backbone.stem.0",
    "feature_extraction.stem.batch_norm": "backbone.stem.1",
    "feature_extraction.top.conv2d": "backbone.head.0",
    "feature_extraction.top.batch_norm": "backbone.head.1",
    "feature_extraction.part1.conv2d": "backbone.stem",
    "feature_extraction.part6.conv2d": "backbone.top",
}
LOCATION = {
    "init.conv2d": "first",
    "se.conv2d_1": "squeeze",
    "se.conv2d_2": "excite",
    "final.conv2d": "fuse",
    "conv2d": "fuse",
    "output_linear": "last",
}
WEIGHTING = {"se.dense_1": "squeeze", "se.dense_2": "excite", "output_linear": "score"}
_COORDINATES = {
    "height_scaling.kernel": "coordinates.height_scale",
    "height_scaling.bias": "coordinates.height_shift",
    "width_scaling.kernel": "coordinates.width_scale",
    "width_scaling.bias": "coordinates.width_shift",
}


def ours(name: str) -> str:
    """Return our parameter's name for a variable of a whole released model."""
    module, _, leaf = name.rpartition(".")
    head, _, rest = name.partition(".")
    if head.startswith("location_prediction"):
        return f"location.{location(rest)}"
    if head == "feature_posBurn":
        return f"position.linear.{_LEAF[leaf]}"
    return f"{_FIXED.get(module) or _block(module) or _head(module)}.{_LEAF[leaf]}"


def _block(module: str) -> str | None:
    block = re.match(r"feature_extraction\.part(\d+)_block(\d+)\.(.+)", module)
    if not block:
        return None
    part, number, inside = int(block[1]) - 2, int(block[2]) - 1, block[3]
    if inside in _BAGNET:
        return f"backbone.parts.{part}.{number}.{_BAGNET[inside]}"
    table = (_FIRST_BLOCK if part == 0 else _BLOCK) | _SE
    return f"backbone.blocks.{part}.{number}.{table[inside]}"


def _head(module: str) -> str:
    for tail, target in WEIGHTING.items():
        if module.endswith(tail):
            return f"aggregate.{target}"
    assert module.endswith("linear"), f"no counterpart is known for {module!r}"
    return "classifier.linear"


def location(name: str) -> str:
    """Return our parameter's name inside a location module."""
    if name in _COORDINATES:
        return _COORDINATES[name]
    module, _, leaf = name.rpartition(".")
    return f"{LOCATION[module]}.{_LEAF[leaf]}"


def to_torch(name: str, value: NDArray[Any], like: Tensor) -> Tensor:
    """Turn a variable's layout into PyTorch's, float32 (or like's dtype)."""
    array = np.asarray(value, dtype=np.float64)
    if name.endswith("depthwise_kernel"):
        array = array.transpose(2, 3, 0, 1)
    elif name.endswith("kernel") and array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif name.endswith("kernel") and array.ndim == 2:
        array = array.T
    return torch.from_numpy(np.ascontiguousarray(array)).reshape(like.shape).to(like.dtype)


def load(model: nn.Module, variables: Mapping[str, NDArray[Any]]) -> None:
    """Load a whole released model's variables; every parameter of ours must be given."""
    state = model.state_dict()
    missing = {key for key in state if not key.endswith("num_batches_tracked")}
    for name, value in variables.items():
        if name.startswith("baseline"):
            continue
        key = ours(name)
        state[key] = to_torch(name, value, state[key])
        missing.discard(key)
    assert not missing, f"the vectors hold nothing for {sorted(missing)[:5]}"
    model.load_state_dict(state)


def seeded(z: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Make the variables of a golden file that holds only their names, shapes and a seed."""
    made = {}
    gain = float(z["conv_gain"])
    for i, name in enumerate(str(n) for n in z["var_names"]):
        shape = tuple(int(s) for s in re.findall(r"\d+", str(z["shapes"][i])))
        made[name] = _draw(name, shape, np.random.RandomState(int(z["init_seed"]) + i), gain)
        total = np.abs(made[name].astype(np.float64)).sum()
        np.testing.assert_allclose(total, z["checksum"][i], rtol=1e-5, err_msg=name)
    if "override_name" in z:
        name = str(z["override_name"])
        made[name] = np.broadcast_to(z["override_value"], made[name].shape)
    return made


def _draw(
    name: str, shape: tuple[int, ...], r: np.random.RandomState, gain: float
) -> NDArray[np.float32]:
    if name == "baseline_var":
        value: Any = 0.5
    elif name.endswith("gamma"):
        value = 1 + 0.1 * r.randn(*shape)
    elif name.endswith(("beta", "moving_mean", "bias")):
        value = 0.1 * r.randn(*shape)
    elif name.endswith("moving_variance"):
        value = 0.5 + r.rand(*shape)
    elif name.endswith("depthwise_kernel"):
        value = r.randn(*shape) * np.sqrt(2 / (shape[0] * shape[1]))
    else:
        scale = gain if len(shape) == 4 else 1.0
        value = r.randn(*shape) * np.sqrt(scale / np.prod(shape[:-1]))
    return np.asarray(value, dtype=np.float32)
