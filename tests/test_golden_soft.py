"""Every number that came out of the official soft-attention code must come out of ours.

The vectors lie in the folder ``soft`` of TNET_GOLDEN (by default the team's
``../shared/golden``), one folder a family, whatever lies there; a tag that the family doesn't
know fails, and so does a family that we don't know.
"""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from golden_soft import tags
from safetensors.torch import save_file
from shared_data import SHARED, shared_folder

FOLDER = Path(os.environ.get("TNET_GOLDEN") or SHARED / "golden") / "soft"
FAMILIES = sorted(place.name for place in FOLDER.glob("*") if place.is_dir())
FOUND = [(family, tag) for family in FAMILIES for tag in sorted(tags(FOLDER / family))]


def cases(family: str) -> dict[str, Callable[[Path], None]]:
    known = Path(__file__).with_name(f"golden_soft_{family}.py").exists()
    return dict(import_module(f"golden_soft_{family}").CASES) if known else {}


def test_the_vectors_are_there() -> None:
    if "TNET_GOLDEN" not in os.environ:
        shared_folder("golden", "soft")
    assert FOUND, f"no golden vectors in {FOLDER}"


@pytest.mark.parametrize(("family", "tag"), FOUND, ids=[f"{f}-{t}" for f, t in FOUND])
def test_ours_gives_the_golden_numbers(family: str, tag: str) -> None:
    check = cases(family).get(tag)
    assert check is not None, f"{FOLDER / family} holds {tag!r}, which no test compares with ours"
    check(FOLDER / family)


def test_a_variant_that_no_family_knows_is_seen(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"van_b9": {"params": 1}}')
    (tmp_path / "described.json").write_text('{"source": "x", "modules": {"gate": {"ctor": "y"}}}')
    save_file({"wide/out": torch.zeros(1), "in/64": torch.zeros(1)}, tmp_path / "new.safetensors")
    assert tags(tmp_path) == {"van_b9", "gate", "wide"}
    assert tags(tmp_path).isdisjoint(cases("van"))
    assert cases("unheard-of") == {}
