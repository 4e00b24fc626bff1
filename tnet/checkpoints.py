"""Official checkpoints become models of TNet: read without running code, renamed, checked.

What is understood: a state dict, bare or under the key ``state_dict``, ``model_state_dict`` or
``model``, written by ``torch.save`` or as safetensors; with or without the prefix ``module.`` that
``torch.nn.DataParallel`` leaves. Its names are those of the authors' code; the family's file in
``tnet/backbones`` knows which of ours they become. A timm architecture of no family keeps its
names.
"""

import hashlib
import pickle
import sys
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import PretrainedCfg
from torch import Tensor

import tnet.backbones  # noqa: F401 - registers the families
from tnet.errors import DataError, UsageError, one_line
from tnet.model import Input, TNet
from tnet.recipes import build

State = dict[str, Tensor]

# Where training scripts put the state dict.
_HOLDERS = ("state_dict", "model_state_dict", "model")
_DEAD_BRANCH = (
    "open-aff's PyTorch port never calls the second global context of its iAFF (its issue 31) and "
    "uses the first one twice; ours got the first one's weights, which computes the same"
)
_MXNET = (0x112).to_bytes(8, "little")  # how MXNet's files of arrays begin


def import_checkpoint(path: str | Path, arch: str) -> State:
    """Return a checkpoint's weights under the names of ``timm.create_model(arch)``.

    Args:
        path: of the checkpoint. Nothing in it is ever executed.
        arch: the timm architecture that it is of, such as "van_b0"; a tag after a dot says how it
            was trained and so what pixels it expects, as in "van_b4.in22k_ft_in1k".

    Returns:
        exactly the entries of the model's own state dict, for as many bands and classes as the
        checkpoint has.

    Raises:
        UsageError: if there is no such architecture, or no such tag of it.
        DataError: if the file cannot be read without running code, holds no state dict, or one
            that does not fit.
    """
    about = describe(arch)
    path = Path(path)
    return convert(_state(_read(path), path), about, path)


def describe(arch: str) -> PretrainedCfg:
    """Return what timm knows of an architecture: its input, first convolution and classifier.

    Raises:
        UsageError: if timm does not know the architecture or its tag.
    """
    try:
        about = timm.get_pretrained_cfg(arch) if timm.is_model(arch) else None
    except RuntimeError as error:  # of a tag that the architecture has not
        raise UsageError(f"{arch!r} cannot be named: {one_line(error)}") from error
    if about is None:
        raise UsageError(f"timm has no model named {arch!r}; `tnet models` lists those there are")
    return about


def convert(state: State, about: PretrainedCfg, path: Path) -> State:
    """Return official weights under our names, having found that they fit.

    Args:
        state: as the authors' code names it, on any device ("meta" will do).
        about: of :func:`describe`.
        path: where it comes from, to be named in errors.

    Raises:
        DataError: if a name or a shape does not fit.
    """
    prefix = "module."  # torch.nn.DataParallel leaves it on every name
    if all(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    renamed = _renamed(state, about.architecture or "", path)
    wanted = _wanted(renamed, about)
    for key in wanted.keys() - renamed.keys():
        if key.endswith("num_batches_tracked"):  # a counter that nothing reads, absent in MXNet
            renamed[key] = torch.zeros((), dtype=torch.int64)
    why = _misfit(renamed, wanted)
    if why:
        raise DataError(
            f"{path}: does not fit {about.architecture!r}: {why}; name the network that it is of"
        )
    return renamed


def imported_model(path: str | Path, arch: str, classes: Sequence[str] | None = None) -> TNet:
    """Return a TNet that says of a whole image, at one look, what the checkpoint's network says.

    Backbone, classifier and normalisation are the checkpoint's; see
    :func:`tnet.recipes.imported` for the rest.

    Args:
        path: as for :func:`import_checkpoint`.
        arch: as for :func:`import_checkpoint`.
        classes: names in the order of the logits; None numbers them "0", "1", and so on.

    Raises:
        UsageError: as :func:`import_checkpoint`, and if there are more or fewer names than classes.
        DataError: as :func:`import_checkpoint`, and if the checkpoint has no classifier.
    """
    path = Path(path)
    about = describe(arch)
    state = import_checkpoint(path, arch)
    head = {name: state.pop(f"{about.classifier}.{name}", None) for name in ("weight", "bias")}
    weight, bias = head["weight"], head["bias"]
    if weight is None or bias is None:
        raise DataError(f"{path}: has no classifier; `import_checkpoint` returns the weights alone")
    names = [str(i) for i in range(len(weight))] if classes is None else list(classes)
    if len(names) != len(weight):
        raise UsageError(f"{path}: has {len(weight)} classes, and {len(names)} were named")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the location module's weights are the same at every import
        model = build(
            "imported", classes=names, bands=_bands(state, about), backbone=about.architecture
        )
    network: Any = model.backbone
    network.model.load_state_dict(state)
    model.classifier.linear.load_state_dict({"weight": weight.flatten(1), "bias": bias})
    _, height, width = about.input_size
    model.plan = replace(model.plan, view=(width, height))
    model.expect(input_of(about, model.expects.bands))
    model.training_record = {
        "imported": path.name,
        "sha256": _sha256(path),
        "arch": arch,
        "untrained": "the location module; the plan looks once",
    }
    if arch.startswith("iaff_") and arch.endswith("_port"):
        model.training_record["note"] = _DEAD_BRANCH
    return model.eval()


def _read(path: Path) -> Any:
    """Return what a file holds, refusing whatever would have to be executed."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_MXNET))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if start == _MXNET:
        raise DataError(
            f"{path}: is a file of MXNet's, which is not read; save its arrays in MXNet under "
            "their structural names as a .safetensors file, gamma as weight and beta as bias"
        )
    damaged = DataError(
        f"{path}: is neither of torch.save nor of safetensors, or is damaged; copy it again"
    )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # argparse's Namespace, in which training scripts keep their flags, is a bag of values.
        with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, EOFError, KeyError, OSError, RuntimeError, ValueError) as error:
        raise damaged from error
    except pickle.UnpicklingError as error:
        if not any(word in str(error) for word in ("GLOBAL", "Unsupported class")):
            raise damaged from error
        raise DataError(
            f"{path}: holds a pickled model or other objects, which could run code when loaded; "
            "load it where you trust it and save its weights alone: "
            "torch.save(model.state_dict(), 'weights.pth')"
        ) from error


def _state(content: Any, path: Path) -> State:
    """Find the state dict in what a file holds."""
    if isinstance(content, Mapping):
        held = [content[key] for key in _HOLDERS if isinstance(content.get(key), Mapping)]
        state = held[0] if held else content
        if state and all(isinstance(value, Tensor) for value in state.values()):
            return {str(key): value for key, value in state.items()}
    raise DataError(
        f"{path}: holds no weights by name, neither bare nor under {', '.join(_HOLDERS)}; "
        "save them with torch.save(model.state_dict(), 'weights.pth')"
    )


def _renamed(state: State, arch: str, path: Path) -> State:
    """Return official weights under the names of our architecture, as its family's file says."""
    family = sys.modules[timm.model_entrypoint(arch).__module__]
    if hasattr(family, "from_official"):
        try:
            return dict(family.from_official(state))
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    rename = getattr(family, "rename", str)  # a timm architecture keeps its names
    return {rename(key): value for key, value in state.items()}


def _wanted(state: State, about: PretrainedCfg) -> State:
    """Return the state dict, without values, of the network with as many bands and classes."""
    head = state.get(f"{about.classifier}.weight")
    classes = 0 if head is None else len(head)
    with torch.device("meta"):
        model = timm.create_model(
            about.architecture or "",
            pretrained=False,
            num_classes=classes,
            in_chans=_bands(state, about),
        )
    return dict(model.state_dict())


def _misfit(state: State, wanted: State) -> str:
    """Say what does not fit, beginning with the first name; nothing if all does."""
    missing = [key for key in wanted if key not in state]
    if missing:
        return f"it lacks {missing[0]!r} and {len(missing) - 1} more"
    spare = [key for key in state if key not in wanted]
    if spare:
        return f"it has {spare[0]!r} and {len(spare) - 1} more that the network has not"
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            return (
                f"its {key!r} is of the shape {tuple(state[key].shape)}, not {tuple(value.shape)}"
            )
    return ""


def _bands(state: State, about: PretrainedCfg) -> int:
    first = state.get(f"{about.first_conv}.weight")
    return 3 if first is None else first.shape[1]


def input_of(about: PretrainedCfg, bands: int) -> Input:
    """Return the 8-bit pixels that a network was trained on; other bands get the average.

    Args:
        about: of :func:`describe`.
        bands: of the images.
    """
    mean, std = ([255 * value for value in values] for values in (about.mean, about.std))
    if bands != len(mean):
        mean, std = ([sum(values) / len(values)] * bands for values in (mean, std))
    return Input(bands=bands, mean=tuple(mean), std=tuple(std))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
