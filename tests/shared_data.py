"""The team's folder ``../shared`` beside the repository: golden numbers and public sample files."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("TNET_SHARED") or ROOT.parent / "shared")


def shared_folder(*parts: str) -> Path:
    """Return a folder or file under ``../shared``; call it in a test or a fixture.

    Where it's missing the test is skipped, or fails if ``TNET_REQUIRE_SHARED=1`` (as ``.ci/run``
    sets it). ``TNET_SHARED`` names another place for the folder.
    """
    place = SHARED.joinpath(*parts)
    if not place.exists():
        name = "/".join(["shared", *parts])
        reason = f"NOT TESTED: {name} is missing beside the repository (TNET_SHARED may name it)"
        if os.environ.get("TNET_REQUIRE_SHARED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return place
