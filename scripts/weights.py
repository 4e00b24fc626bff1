"""Where a model's first weights come from: a run, a model file, or a checkpoint of a backbone."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tnet.backbones.generic import TimmBackbone
from tnet.errors import DataError, ModelFileError, UsageError
from tnet.model import Input, TNet
from tnet.scripts.runs import model_file

State = dict[str, Tensor]
_DEFAULT = "resnet18"


@dataclass(frozen=True)
class Source:
    """Weights that were read.

    Attributes:
        name: of the file.
        expects: the pixels that they were made for, if that is known.
        model: the whole TNet, if it is one.
        backbone: otherwise the weights of a timm architecture, under timm's names.
        first: name of the first convolution's weights there.
        classifier: how the classifier's names begin there.
    """

    name: str
    expects: Input | None
    model: TNet | None = None
    backbone: State | None = None
    first: str = ""
    classifier: str = ""


def read_source(place: str | None, arch: str | None) -> Source | None:
    """Read weights to start from; nothing in a file is executed.

    Args:
        place: a run's folder, a TNet model file, or a checkpoint; None for none.
        arch: the timm architecture that a checkpoint is of.

    Raises:
        DataError: if the file cannot be read, or does not fit the architecture.
        UsageError: if a folder holds no model, or there is no such architecture.
    """
    if place is None:
        return None
    from tnet.bundle import load, read_header, shipped

    path = shipped().get(place, model_file(place))
    if not path.exists():
        raise DataError(f"{path}: there is no such file; name a run, a model or a checkpoint")
    if path.suffix == ".safetensors":
        try:
            read_header(path)
        except ModelFileError as error:
            # Foreign weights have no header of ours; anything else is for the user to know.
            if "has no 'tnet'" not in str(error):
                raise
        else:
            model = load(path)
            return Source(str(path), model.expects, model)
    return _checkpoint(path, arch or _DEFAULT)


def _checkpoint(path: Path, arch: str) -> Source:
    from tnet.checkpoints import describe, import_checkpoint, input_of

    about = describe(arch)
    state = import_checkpoint(path, arch)
    first = f"{about.first_conv}.weight"
    bands = state[first].shape[1] if first in state else 3
    return Source(
        str(path), input_of(about, bands), None, state, first, f"{about.classifier or 'none'}."
    )


def fill_backbone(model: TNet, source: Source) -> str:
    """Give the backbone its weights; return what to say of it.

    Raises:
        DataError: if not all of the backbone's weights are there, or one has another shape.
        UsageError: if the model's backbone takes no such weights.
    """
    if source.model is not None:
        given = dict(source.model.backbone.state_dict())
        network: nn.Module = model.backbone
        spare = 0
    else:
        assert source.backbone is not None
        if not isinstance(model.backbone, TimmBackbone):
            raise UsageError(
                f"{source.name}: weights of a timm architecture fit the recipe 'default'; this "
                "recipe's backbone takes those of a TNet model file"
            )
        network = model.backbone.model
        given = {k: v for k, v in source.backbone.items() if not k.startswith(source.classifier)}
        spare = len(source.backbone) - len(given)
        _fit_bands(given, source.first, network)
    wanted = network.state_dict()
    wrong = [
        key for key, value in wanted.items() if key in given and given[key].shape != value.shape
    ]
    missing = [key for key in wanted if key not in given]
    if missing or wrong:
        first = (missing + wrong)[0]
        raise DataError(
            f"{source.name}: does not fit the backbone: {len(missing)} of its {len(wanted)} arrays "
            f"are missing and {len(wrong)} have another shape, beginning with {first!r}; name the "
            "architecture with --backbone"
        )
    network.load_state_dict({key: given[key] for key in wanted})
    unused = len(given) - len(wanted) + spare
    spare_said = f" ({unused} arrays of it are not used)" if unused else ""
    return f"the backbone has the weights of {source.name}{spare_said}"


def _fit_bands(state: State, first: str, network: nn.Module) -> None:
    """Give a first convolution for colours as many bands as the network has: the mean of them."""
    wanted = network.state_dict()
    if first not in state or first not in wanted:
        return
    bands = wanted[first].shape[1]
    if state[first].shape[1] != bands:
        mean = state[first].mean(dim=1, keepdim=True)
        # The sum over the bands stays as large as it was.
        state[first] = mean.repeat(1, bands, 1, 1) * (state[first].shape[1] / bands)


def fill_parts(model: TNet, source: Source) -> str:
    """Give a model every weight that fits, whatever its plan; return what to say of it.

    Raises:
        UsageError: if the weights are no TNet's.
        DataError: if none of the backbone's weights fit.
    """
    if source.model is None:
        raise UsageError(f"{source.name}: is no TNet model; name it with --pretrained")
    given = source.model.state_dict()
    wanted = model.state_dict()
    if source.model.classes != model.classes:
        given = {key: value for key, value in given.items() if not key.startswith("classifier.")}
    fits = {k: v for k, v in given.items() if k in wanted and v.shape == wanted[k].shape}
    if not any(key.startswith("backbone.") for key in fits):
        raise DataError(
            f"{source.name}: none of its weights fit this model's backbone; leave --recipe and "
            "--backbone out to take its own"
        )
    with torch.no_grad():
        model.load_state_dict(fits, strict=False)
    left = sorted({key.partition(".")[0] for key in wanted if key not in fits})
    new = f"; new: {len(wanted) - len(fits)} arrays of {', '.join(left)}" if left else ""
    return f"{len(fits)} of {len(wanted)} arrays come from {source.name}{new}"
