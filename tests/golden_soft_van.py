"""The golden numbers of VAN: which of our parts each belongs to."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from golden_soft import (
    EXACT,
    ROUNDED,
    assert_near,
    check_module,
    load,
    names,
    read,
    read_json,
    recipe_input,
    recipe_state,
)
from torch import Tensor, nn

from tnet.backbones.large_kernel import LargeKernelAttention
from tnet.backbones.van import (
    VARIANTS,
    Attention,
    Block,
    Mlp,
    PatchEmbed,
    rename,
)

FULL = "van_b0_full"


def within(official: str, ours: str) -> Callable[[str], str]:
    """Return the renaming of a part's own keys from where the part stands in a whole network."""
    return lambda key: rename(official + key).removeprefix(ours)


def module(tag: str, make: Callable[[], nn.Module], official: str, ours: str) -> None:
    def check(folder: Path) -> None:
        check_module(folder / "van_modules.safetensors", tag, make(), within(official, ours))

    CASES[tag] = check


def full(folder: Path) -> None:
    """Hold B0 with its stored weights to its logits and to the map after each stage."""
    file = folder / f"{FULL}.safetensors"
    network: Any = timm.create_model("van_b0").eval()
    load(network, read(file, "state/"), rename)
    description = read_json(folder / "van.json")[FULL]
    for size in description:
        assert description[size]["input_recipe"] == f"inp('van_b0:{size}', (1,3,{size},{size}))"
        x = recipe_input(f"van_b0:{size}", (1, 3, int(size), int(size)))
        if f"in/{size}" in names(file):
            assert torch.equal(x, read(file)[f"in/{size}"])
        with torch.inference_mode():
            final, maps = network.forward_intermediates(x.double())
            logits = network.forward_head(final)
        assert_near(logits, read(file, f"out/{size}/")["logits_f64"], EXACT, f"logits at {size}")
        assert_statistics(logits, description[size]["logits"])
        for out, statistics in zip(maps, description[size]["stage_stats"], strict=True):
            assert_statistics(out, statistics)
        for number, wanted in read(file, f"out/{size}/stage").items():
            assert_near(maps[int(number) - 1], wanted, ROUNDED, f"stage {number} at {size}")


def assert_statistics(out: Tensor, wanted: dict[str, Any]) -> None:
    assert list(out.shape) == wanted["shape"]
    got = {"mean": out.mean(), "std": out.std(), "absmax": out.abs().max()}
    for name, value in got.items():
        assert float(value) == pytest.approx(wanted[name], rel=1e-4, abs=1e-5), name


def variant(name: str, folder: Path) -> None:
    """Hold a variant to its list of keys, its count, and its logits if the folder has them."""
    stated = read_json(folder / "van_b0_b6_state_dict_keys.json")[name]
    shapes = {key: shape for key, (shape, _) in stated["keys"].items()}
    with torch.device("meta"):
        network: Any = timm.create_model(name)
    ours = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert {rename(key): list(shape) for key, shape in shapes.items()} == ours
    assert sum(p.numel() for p in network.parameters()) == stated["params"]
    file = folder / "van_b0_b6_recipe_outputs.safetensors"
    golden = read(file)
    wanted = golden.get(f"{name}/out/logits_f64")
    # Of the largest variants a folder may have statistics only, which float32 is enough for.
    dtype = torch.float32 if wanted is None else torch.float64
    state = {rename(key): value for key, value in recipe_state(shapes).items()}
    network.load_state_dict(state, assign=True)
    with torch.inference_mode():
        logits = network.to(dtype).eval()(golden["in/64"].to(dtype))
    if wanted is not None:
        assert_near(logits, wanted, EXACT, f"logits of {name}")
    described = read_json(folder / "van.json")["recipe_outputs"][name]
    assert_statistics(logits, described["logits"])
    assert int(logits.argmax()) == described["argmax"]


CASES: dict[str, Callable[[Path], None]] = {FULL: full}
CASES |= {name: partial(variant, name) for name in VARIANTS}
BLOCK = ("block1.0.", "stages.0.blocks.0.")
module(
    "lka",
    lambda: LargeKernelAttention(16),
    BLOCK[0] + "attn.spatial_gating_unit.",
    BLOCK[1] + "attention.gate.",
)
module("attention", lambda: Attention(16), BLOCK[0] + "attn.", BLOCK[1] + "attention.")
module("mlp", lambda: Mlp(16, 64), BLOCK[0] + "mlp.", BLOCK[1] + "mlp.")
module("block", lambda: Block(16, 4), *BLOCK)
module("block_r8", lambda: Block(8, 8), *BLOCK)
EMBED = ("patch_embed1.", "stages.0.embed.")
module("patch_embed_7x4", lambda: PatchEmbed(3, 16, 7, 4), *EMBED)
module("patch_embed_3x2", lambda: PatchEmbed(16, 24, 3, 2), *EMBED)
