"""What is asked of every family of backbones, to be called by the tests of each."""

from typing import Any

import torch
from torch import Tensor, nn

from tnet.backbones.generic import TimmBackbone


def gives_map_and_feature(
    backbone: TimmBackbone, view_MCHW: Tensor, channels: int, side: tuple[int, int]
) -> None:
    """At inference the map has so many channels and such sides, and the feature one row a view."""
    with torch.inference_mode():
        feature_map, feature = backbone.eval()(view_MCHW)
    assert feature_map.shape == (len(view_MCHW), backbone.map_channels, *side)
    assert backbone.map_channels == channels
    assert feature.shape == (len(view_MCHW), backbone.features)
    assert feature_map.isfinite().all()
    assert feature.isfinite().all()


def trains_every_weight(network: nn.Module, view_MCHW: Tensor) -> None:
    """While training, logits are finite, and every parameter has a finite gradient."""
    out = network.train()(view_MCHW)
    out.logsumexp(1).sum().backward()
    assert out.isfinite().all()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def works_in_bfloat16(network: nn.Module, view_MCHW: Tensor, atol: float | None) -> None:
    """Under autocast the logits are those of float32, and a backward pass succeeds.

    Args:
        network: in training or not.
        view_MCHW: what it looks at.
        atol: how far the logits may be off beside a tenth of them; None asks for finite ones
            alone.
    """
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(view_MCHW)
    assert out.isfinite().all()
    if atol is not None:
        torch.testing.assert_close(out.float(), network(view_MCHW), rtol=0.1, atol=atol)
    torch.autograd.backward(out.float().sum())


def infers_in_bfloat16(network: nn.Module, view_MCHW: Tensor) -> None:
    """Without gradients, where some arithmetic is done in place, it is the same."""
    network.eval()
    with torch.inference_mode():
        exact = network(view_MCHW)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = network(view_MCHW)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), exact, rtol=0.1, atol=0.05)


def ignores_memory_format(network: nn.Module, view_MCHW: Tensor, atol: float = 1e-6) -> None:
    """With channels last the results are the same, and they are those of float64."""
    network.eval()
    with torch.inference_mode():
        out = network(view_MCHW)
        last = network(view_MCHW.contiguous(memory_format=torch.channels_last))
        exact = network.double()(view_MCHW.double())
    torch.testing.assert_close(last, out, rtol=0, atol=atol)
    torch.testing.assert_close(exact.float(), out, rtol=0, atol=atol)


def is_one_graph(network: nn.Module, view_MCHW: Tensor) -> None:
    """The compiler takes it as a whole; while training, with its backward pass."""
    backend = "aot_eager" if network.training else "eager"
    compiled: Any = torch.compile(network, backend=backend, fullgraph=True)
    with torch.set_grad_enabled(network.training):
        out = compiled(view_MCHW)
        torch.testing.assert_close(out, network(view_MCHW))
    if network.training:
        torch.autograd.backward(out.sum())


def compiles(module: nn.Module, x_MCHW: Tensor) -> None:
    """What inductor makes of it gives the same; while training, with its backward pass."""
    compiled: Any = torch.compile(module, fullgraph=True)
    with torch.set_grad_enabled(module.training):
        out = compiled(x_MCHW)
        torch.testing.assert_close(out, module(x_MCHW), rtol=1e-4, atol=1e-4)
    if module.training:
        torch.autograd.backward(out.sum())


def exports_with_any_batch(module: nn.Module, x_MCHW: Tensor) -> None:
    """torch.export's program gives the same, and for one view more as well."""
    module.eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, (x_MCHW,), dynamic_shapes=({0: batch},)).module()
    more_MCHW = torch.randn(len(x_MCHW) + 1, *x_MCHW.shape[1:])
    with torch.inference_mode():
        for view in (x_MCHW, more_MCHW):
            torch.testing.assert_close(program(view), module(view))
