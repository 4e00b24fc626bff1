"""Receptive-field attention: one result in two forms, and known answers."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tnet.backbones import taps
from tnet.backbones.receptive import (
    ReceptiveConv,
    RFAConv,
    RFCAConv,
    RFCBAMConv,
    UnfoldRFAConv,
)
from tnet.backbones.taps import windows
from tnet.errors import UsageError

FORMS = [RFAConv, RFCBAMConv, RFCAConv]


def in_both_forms(conv: type[ReceptiveConv], *sizes: int) -> tuple[ReceptiveConv, ReceptiveConv]:
    """Return the same float64 convolution twice, cheap and literal, with lively norms."""
    cheap, literal = conv(*sizes).double(), conv(*sizes, literal=True).double()
    for name, value in cheap.state_dict().items():
        if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point():
            value.normal_(0, 0.3)
    literal.load_state_dict(cheap.state_dict())
    return cheap, literal


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (3, 3), (5, 1), (7, 4)])
@pytest.mark.parametrize("conv", FORMS)
def test_the_cheap_form_is_the_literal_one(
    conv: type[ReceptiveConv], kernel: int, stride: int, training: bool
) -> None:
    both = in_both_forms(conv, 5, 7, kernel, stride)
    view = torch.randn(2, 5, 11, 8, dtype=torch.float64)
    upstream, outs, gradients = None, [], []
    for form in both:
        x = view.clone().requires_grad_()
        out = form.train(training)(x)
        upstream = torch.randn_like(out) if upstream is None else upstream
        outs.append(out)
        gradients.append(torch.autograd.grad((out * upstream).sum(), [x, *form.parameters()]))
    assert outs[0].shape == (2, 7, (11 - 1) // stride + 1, (8 - 1) // stride + 1)
    torch.testing.assert_close(*outs, rtol=0, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
    torch.testing.assert_close(*(form.state_dict() for form in both), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("at_once", "small"), [(1, 0), (5 * 9 * 6 * 4 * 2, 256), (2**20, 0)])
@pytest.mark.parametrize("conv", FORMS)
def test_inference_in_parts_and_in_place_changes_nothing(
    conv: type[ReceptiveConv], at_once: int, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taps, "AT_ONCE", at_once)
    monkeypatch.setattr(taps, "SMALL", small)
    cheap, literal = (form.eval() for form in in_both_forms(conv, 5, 7, 3, 2))
    view = torch.randn(5, 5, 12, 8, dtype=torch.float64)
    before = view.clone()
    with torch.inference_mode():
        torch.testing.assert_close(cheap(view), literal(view), rtol=0, atol=1e-12)
    assert torch.equal(view, before)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (3, 1), (3, 2), (5, 3)])
def test_windows_are_what_unfolding_gives(kernel: int, stride: int) -> None:
    view = torch.randn(2, 3, 7, 10)
    unfolded = F.unfold(view, kernel, padding=kernel // 2, stride=stride)
    assert torch.equal(windows(view, kernel, stride).flatten(1, 2).flatten(2), unfolded)


@pytest.mark.parametrize("literal", [False, True])
def test_equal_weights_of_plain_pixels_are_a_plain_convolution(literal: bool) -> None:
    """Known answer: where each tap is its own pixel and all weigh alike, a ninth of nn.Conv2d."""
    conv = RFAConv(4, 6, 3, 2, literal=literal).eval()
    conv.generate.weight.data = torch.eye(9).reshape(9, 1, 3, 3).repeat(4, 1, 1, 1)
    nn.init.zeros_(conv.weigh.weight)
    assert conv.gather.bias is not None
    nn.init.zeros_(conv.gather.bias)
    conv.norm.eps = 0.0
    view = torch.rand(2, 4, 9, 8)
    plain = F.conv2d(view, conv.gather.weight, stride=2, padding=1) / 9
    torch.testing.assert_close(conv(view), plain)


def test_the_smallest_weights_are_of_the_widths_that_the_paper_counts() -> None:
    """9 C + 81 C + 18 C + 9 C O + O and its kin, at C = 64, O = 128."""
    c, o = 64, 128
    shared = 81 * c + 18 * c + 9 * c * o + o
    counts = [sum(p.numel() for p in conv(c, o).parameters()) for conv in FORMS]
    assert counts == [
        shared + 9 * c,
        shared + 18 + 32 * c,
        shared + (8 * c + 8) + 16 + 2 * (8 * c + c),
    ]


@pytest.mark.parametrize("conv", [*FORMS, UnfoldRFAConv])
def test_sizes_that_make_no_sense_are_a_sentence(conv: Any) -> None:
    with pytest.raises(UsageError, match="odd and positive, got 2"):
        conv(4, 4, 2)
    with pytest.raises(UsageError, match="stride must be 1 or more, got 0"):
        conv(4, 4, 3, 0)


@pytest.mark.parametrize("conv", FORMS)
def test_a_norm_that_learns_sees_all_views(
    conv: type[ReceptiveConv], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only the norms are left to learn, as in adapting to new images, no parts are made."""
    monkeypatch.setattr(taps, "AT_ONCE", 1)
    cheap, literal = (form.eval() for form in in_both_forms(conv, 4, 4))
    for form in (cheap, literal):
        form.norm.train()
        form(torch.ones(2, 4, 5, 5, dtype=torch.float64) * torch.arange(2)[:, None, None, None])
    assert cheap.norm.num_batches_tracked == 1
    torch.testing.assert_close(cheap.state_dict(), literal.state_dict(), rtol=0, atol=1e-12)


def test_no_views_at_all() -> None:
    assert RFAConv(4, 6).eval()(torch.empty(0, 4, 5, 7)).shape == (0, 6, 5, 7)
