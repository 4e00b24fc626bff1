"""The memory contract: what a walk needs does not depend on the size of the image."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from tnet.bundle import save
from tnet.recipes import build


def sparse(path: Path, side: int) -> Path:
    """Write an OME-Zarr of a few patches; all else of it is not even stored."""
    group = zarr.open_group(str(path), mode="w")
    patch = np.random.default_rng(0).integers(0, 256, (3, 512, 512), dtype=np.uint8)
    datasets = []
    for level in range(20):
        size = -(-side // 2**level)
        if level > 0 and size < 200:
            break
        array = group.create_array(
            str(level), shape=(3, size, size), chunks=(3, 256, 256), dtype="uint8", fill_value=0
        )
        for corner in (0, size // 2):
            part = patch[:, : size - corner, : size - corner]
            array[:, corner : corner + part.shape[1], corner : corner + part.shape[2]] = part
        scale = {"type": "scale", "scale": [1, 2**level, 2**level]}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
    axes = [{"name": "c", "type": "channel"}] + [{"name": n, "type": "space"} for n in "yx"]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": "sparse", "axes": axes, "datasets": datasets}],  # type: ignore[dict-item]
    }
    return path


def peak_kilobytes(image: Path, model: Path) -> int:
    """Return the peak resident memory of ``tnet classify`` in its own process."""
    command = ["-P", "-m", "tnet.scripts.main", "classify", str(image), "--model", str(model)]
    process = subprocess.Popen(
        [sys.executable, *command, "--background", "off"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted differently elsewhere")
def test_a_400_times_larger_image_needs_no_more_memory(tmp_path: Path) -> None:
    model = build("default", classes=["a", "b"], backbone="test_resnet", stride=8)
    file = save(model, tmp_path / "model.safetensors")
    small = peak_kilobytes(sparse(tmp_path / "small.zarr", 5_000), file)
    large = peak_kilobytes(sparse(tmp_path / "large.zarr", 100_000), file)
    assert large < 1.15 * small
