"""Reading and comparing the shared golden vectors of the soft-attention backbones.

A family's file ``golden_soft_FAMILY.py`` holds ``CASES``, a function for each tag that may lie in
the folder ``soft/FAMILY``; :func:`tags` says which do.
"""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

Rename = Callable[[str], str]

# Golden float64 numbers came out of float64 runs, float32 ones (gradients, training) of float32
# runs, which ours, in float64, can only meet to their rounding.
EXACT = 1e-9
ROUNDED = 1e-5


def recipe_values(name: str, shape: Sequence[int], low: float, high: float) -> Tensor:
    """Return float32 numbers that depend on nothing but a name: RandomState of its CRC-32."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.uniform(low, high, size=int(np.prod(shape, dtype=int))).astype(np.float32)
    return torch.from_numpy(values.reshape(tuple(shape)))


def recipe_input(name: str, shape: Sequence[int]) -> Tensor:
    """Return the input of this name, of zero mean and unit variance."""
    return recipe_values(f"input:{name}", shape, -1.7320508, 1.7320508)


def recipe_weight(key: str, shape: Sequence[int]) -> Tensor:
    """Return the parameter or buffer that the recipe gives an official key."""
    last = key.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return torch.zeros(tuple(shape), dtype=torch.int64)
    u = recipe_values(key, shape, -1.0, 1.0).numpy()
    f = np.float32
    if last == "running_mean" or (last == "bias" and len(shape) < 2):
        u = f(0.1) * u
    elif last == "running_var":
        u = f(1.0) + f(0.5) * u
    elif last.startswith("layer_scale"):
        u = f(0.05) + f(0.025) * u
    elif len(shape) >= 2:
        u = u * f(np.sqrt(3.0 / int(np.prod(shape[1:]))))
    else:
        u = f(1.0) + f(0.25) * u
    return torch.from_numpy(np.asarray(u))


def recipe_state(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return a whole state from official keys and shapes."""
    return {key: recipe_weight(key, shape) for key, shape in shapes.items()}


@cache
def read_json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


def names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as tensors:
        return list(tensors.keys())


def read(file: Path, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, under what follows it."""
    with safe_open(file, framework="pt") as tensors:
        return {
            key.removeprefix(prefix): tensors.get_tensor(key)
            for key in tensors.keys()  # noqa: SIM118  (safe_open is no dict)
            if key.startswith(prefix)
        }


def tags(folder: Path) -> set[str]:
    """Return every tag that a family's folder holds a number for.

    In a .safetensors file a tag is what stands before the first slash ("in" is input), or the
    file's name where it holds one network ("state"). In a .json file it is a key of the file if
    all its values are dicts, else a key of each section whose values are dicts (or the section,
    if its keys are sizes of inputs), and the name of each list of dicts.
    """
    found: set[str] = set()
    for file in folder.rglob("*.safetensors"):
        first = {key.split("/")[0] for key in names(file)}
        found |= {file.stem} if "state" in first else first - {"in"}
    for file in folder.rglob("*.json"):
        found |= _tags_of(read_json(file))
    return found


def _tags_of(content: dict[str, Any]) -> set[str]:
    def all_dicts(values: Any) -> bool:
        return bool(values) and all(isinstance(value, dict) for value in values)

    sections = {key for key, value in content.items() if isinstance(value, dict)}
    found = {key for key, v in content.items() if isinstance(v, list) and all_dicts(v)}
    if sections == set(content):
        return sections
    for section in sections:
        inner = content[section]
        if all_dicts(inner.values()):
            found |= {section} if all(key.isdigit() for key in inner) else set(inner)
    return found


def assert_near(got: Tensor, wanted: Tensor, tolerance: float, what: str = "") -> None:
    """Fail where two tensors differ by more than a part of the largest wanted number (or of 1)."""
    assert got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)}, not {tuple(wanted.shape)}"
    allowed = tolerance * max(1.0, float(wanted.abs().max()))
    difference = float((got.detach().double() - wanted.double()).abs().max())
    assert difference <= allowed, f"{what}: differs by {difference:.3g}, allowed {allowed:.3g}"


def load(module: nn.Module, state: Mapping[str, Tensor], rename: Rename) -> None:
    """Give a module all its weights, which come with official names, and make it float64.

    MXNet counts no batches; only such counters may be missing.
    """
    missing, unexpected = module.double().load_state_dict(
        {rename(key): value for key, value in state.items()}, strict=False
    )
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing), missing


def check_module(file: Path, tag: str, module: nn.Module, rename: Rename) -> None:
    """Compare outputs, gradients, outputs while training and buffers, as far as there are any."""
    golden = read(file, f"{tag}/")
    load(module, _below(golden, "state/"), rename)
    inputs = [value.double().requires_grad_() for _, value in sorted(_below(golden, "in/").items())]
    out = module.eval()(*inputs)
    assert_near(out, golden["eval/out_f64/0"], EXACT, "output")
    if "eval/cotangent/0" in golden:
        (out * golden["eval/cotangent/0"]).sum().backward()
        _check_gradients(golden, module, inputs, rename)
    if "train/out/0" in golden:
        with torch.no_grad():
            assert_near(module.train()(*inputs), golden["train/out/0"], ROUNDED, "training")
        state = module.state_dict()
        for key, value in _below(golden, "train/buffers_after/").items():
            assert_near(state[rename(key)], value, ROUNDED, key)


def _check_gradients(
    golden: Mapping[str, Tensor], module: nn.Module, inputs: Sequence[Tensor], rename: Rename
) -> None:
    for number, tensor in enumerate(inputs):
        assert tensor.grad is not None
        assert_near(tensor.grad, golden[f"eval/grad_in/{number}"], ROUNDED, "gradient of input")
    parameters = dict(module.named_parameters())
    wanted = {rename(key): value for key, value in _below(golden, "eval/grad_param/").items()}
    assert wanted
    for key, value in wanted.items():
        gradient = parameters[key].grad
        assert gradient is not None
        assert_near(gradient, value, ROUNDED, f"gradient of {key}")


def _below(values: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
