"""What holds for every test: few threads, fixed seeds, reproducible examples."""

import os
import random
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from command_line import CommandLine

# Read by torch and numpy when they're first imported. One thread each: the tests' tensors are
# small, and sums come out in the same order on every machine.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("nightly", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _same_seed_for_every_test() -> None:
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _own_compiler_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep torch.compile away from the machine's cache.

    A file that an interrupted run left there half-written would fail a test.
    """
    # torch names the machine's as soon as it is imported.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path_factory.mktemp("inductor"))


@pytest.fixture
def tnet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "CommandLine":
    """Return the command line, to be called as a shell would."""
    from command_line import CommandLine  # which loads torch

    return CommandLine(monkeypatch, capsys)
