"""What ``tnet classify --attention`` draws inside every glimpse, and whether a model can."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tnet.errors import UsageError

if TYPE_CHECKING:
    from tnet.model import TNet
    from tnet.pyramid import Pyramid
    from tnet.record import Walk
    from tnet.replaying import Pixels

SOFT, GRAD_CAM = "soft", "grad-cam"


@dataclass(frozen=True)
class Inside:
    """What is drawn inside a glimpse.

    Attributes:
        cam: Grad-CAM of a class; otherwise the backbone's own attention.
        target: the class; None for the predicted one.
    """

    cam: bool
    target: str | None = None

    def draw(
        self, model: "TNet", walk: "Walk", pixels: "Pixels", pyramid: "Pyramid"
    ) -> Mapping[int, bytes]:
        """Return a PNG file for each glimpse, by its number.

        None without evidence, where the class was to be the predicted one.

        Args:
            model: that walked.
            walk: the record.
            pixels: that the network was given.
            pyramid: the image.
        """
        from tnet.adapters.insets import draw_insets
        from tnet.insets import grad_cam_maps, soft_maps

        target = walk.label if self.target is None else self.target
        if not self.cam:
            maps, title = soft_maps(model, walk, pixels), "soft attention"
        elif target is None:
            return {}
        else:
            maps, title = grad_cam_maps(model, walk, pixels, target), f"Grad-CAM for {target}"
        views = [*pixels.first, *pixels.views]
        absent = len(walk.glimpses) - len(views)
        return draw_insets(pyramid, dict(enumerate(views, start=absent)), maps, title)


def inside_of(text: str, model: "TNet") -> Inside:
    """Return what --attention asks for.

    Raises:
        UsageError: if it makes no sense, or the model cannot give it.
    """
    kind, colon, target = text.partition(":")
    if text == SOFT:
        _check_soft(model)
        return Inside(cam=False)
    if kind != GRAD_CAM or (colon and not target):
        raise UsageError(f"--attention takes soft, grad-cam or grad-cam:CLASS, got {text!r}")
    _check_cam(model, target or model.classes[0])
    return Inside(cam=True, target=target or None)


def _check_soft(model: "TNet") -> None:
    from tnet.insets import has_soft_attention

    if not has_soft_attention(model):
        raise UsageError(
            "the model's backbone has no soft attention of its own to show; take "
            "--attention grad-cam, which any convolutional backbone has"
        )


def _check_cam(model: "TNet", target: str) -> None:
    """Try it on nothing, which is cheap and tells all that may be in the way."""
    import torch

    from tnet.attention import grad_cam

    across, down = model.plan.view
    try:
        grad_cam(model, torch.zeros(model.expects.bands, down, across), target, -1)
    except UsageError as error:
        raise UsageError(f"--attention grad-cam: {error}") from error
