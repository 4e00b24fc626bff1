"""Each family learns: 200 steps on scikit-learn's handwritten digits, enlarged."""

import pytest
import timm
import torch
from torch.nn import functional as F

import tnet.backbones  # noqa: F401 - registers the families

STEPS, BATCH, SIDE, DIGITS = 200, 16, 32, 600


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """600 digits of 10 classes: grey float (600, 1, 32, 32) from 8 x 8 pixels, and labels."""
    data = pytest.importorskip("sklearn.datasets", reason="the digits come with scikit-learn")
    read = data.load_digits()
    small = torch.from_numpy(read.images[:DIGITS]).float()[:, None] / 8 - 1
    labels = torch.from_numpy(read.target[:DIGITS])
    return F.interpolate(small, size=(SIDE, SIDE), mode="bilinear"), labels


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("van_b0", 2e-3),
        ("aff_resnet18_port", 2e-3),
        ("rfaconv_resnet18", 2e-3),
        ("das_resnet18", 2e-3),
        ("bagnet77", 3e-4),  # it has no norms, and learns nothing at a higher rate
    ],
)
def test_a_family_learns(name: str, rate: float, digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    views, labels = digits
    network = timm.create_model(name, num_classes=10, in_chans=1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=STEPS)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        batch = torch.randperm(len(views), generator=generator)[:BATCH]
        loss = F.cross_entropy(network(views[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.inference_mode():
        said = torch.cat([network(part).argmax(1) for part in views.split(50)])
    accuracy = (said == labels).double().mean().item()
    assert accuracy >= 0.95, f"{name}: {accuracy:.1%} of the training digits"
