"""The model file: one ``.safetensors`` with the weights and all else that classifying needs.

Its header holds the recipe and its options, plan, classes, expected pixels and where the model
comes from, as JSON under the key ``tnet``. Nothing in a file is ever executed: a recipe is looked
up by name, and its options are plain values that the recipe checks.
"""

import hashlib
import json
import math
import os
from contextlib import suppress
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from tnet import __version__
from tnet.errors import DataError, ModelFileError, TNetError, UsageError, counted
from tnet.model import Input, TNet
from tnet.plan import Plan
from tnet.recipes import build

FORMAT = 1
_SUFFIX = ".safetensors"
_LARGEST_HEADER = 32 * 2**20


def shipped() -> dict[str, Path]:
    """Return the models that come with the package: name -> file."""
    folder = Path(str(resources.files("tnet"))) / "models"
    return {path.name.removesuffix(_SUFFIX): path for path in sorted(folder.glob("*" + _SUFFIX))}


def save(
    model: TNet,
    path: str | Path,
    *,
    training: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a model to a file, beside it first and then renamed, so that none is half-written.

    Args:
        model: built by :func:`tnet.recipes.build`, so that it can be built again.
        path: where to; must end in ``.safetensors``.
        training: what it learned from, as JSON values: the hash of the training data, the
            command, seeds and scores. None keeps what the model carries.
        dtype: store the weights in this type (float16 halves the file); None keeps theirs.

    Raises:
        UsageError: if the model was not built by a recipe, the path has another ending, or the
            weights or what it learned from cannot be stored.
        DataError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix != _SUFFIX:
        raise UsageError(f"{path}: a model file ends in {_SUFFIX}")
    if model.recipe is None:
        raise UsageError("only a model that was built by a recipe can be saved: tnet.recipes.build")
    recipe, options = model.recipe
    if model.expects.bands != options.get("bands", 3):
        raise UsageError(
            f"the model was built for {counted(options.get('bands', 3), 'band')} and told to "
            f"expect {model.expects.bands}; build it again with bands={model.expects.bands}"
        )
    header = {
        "format": FORMAT,
        "version": __version__,
        "recipe": recipe,
        "options": options,
        "plan": model.plan.to_dict(),
        "classes": list(model.classes),
        "expects": asdict(model.expects),
        "training": training if training is not None else model.training_record,
    }
    if model.multilabel:
        header["multilabel"] = True
    if model.calibration != 1:
        header["calibration"] = model.calibration
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: what goes with the weights must be JSON: {error}") from error
    tensors = _stored(model, dtype)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # Through bytes, because safetensors' own files are closed to everyone but their owner.
        partial.write_bytes(serialize(tensors, metadata={"format": "pt", "tnet": text}))
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be written ({error})") from error
    finally:
        # Where the folder is no folder there is nothing to take away either.
        with suppress(OSError):
            partial.unlink()
    return path


def _stored(model: TNet, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the weights as the file holds them, all of them finite."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        kept = tensor.detach().cpu().contiguous()
        if not torch.isfinite(kept).all():
            raise UsageError(f"the weights {name!r} hold NaN or infinity and are not worth saving")
        if dtype and kept.is_floating_point():
            kept = kept.to(dtype)
            if not torch.isfinite(kept).all():
                raise UsageError(
                    f"the weights {name!r} are too large for {str(dtype).removeprefix('torch.')}; "
                    "save them in another type"
                )
        tensors[name] = kept
    return tensors


def load(model: str | Path, *, device: str | torch.device = "cpu") -> TNet:
    """Return a model that is ready to classify.

    Args:
        model: name of a shipped model (see :func:`shipped`), or a file.
        device: where to put it.

    Raises:
        ModelFileError: if the file is missing, damaged, foreign, of a later format, or holds
            weights that do not fit its recipe.
    """
    path = _find(model)
    header = read_header(path)
    sha256 = _digest(path)
    built = _rebuild(header, path)
    _fill(built, path)
    built.name = path.name.removesuffix(_SUFFIX)
    built.sha256 = sha256
    return built.to(device).eval()


def read_header(path: str | Path) -> dict[str, Any]:
    """Return what a model file says of itself, without its weights.

    Raises:
        ModelFileError: as :func:`load`.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > _LARGEST_HEADER:
            raise ModelFileError(_foreign(path))
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ModelFileError(_foreign(path)) from error
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    if "tnet" not in metadata:
        raise ModelFileError(
            f"{path}: is a safetensors file but not a TNet model; its header has no 'tnet'"
        )
    try:
        header = json.loads(metadata["tnet"])
        number = int(header["format"])
        if number < 1:
            raise ValueError(f"format {number}")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ModelFileError(f"{path}: the model's header is damaged ({error!r})") from error
    if number > FORMAT:
        raise ModelFileError(
            f"{path}: is of model format {number} and this version reads up to {FORMAT}; "
            f"it was made by TNet {header.get('version')}, so upgrade: pip install -U tnet"
        )
    return dict(header)


def _find(model: str | Path) -> Path:
    path = Path(model)
    known = shipped()
    if str(model) in known and not path.is_file():
        return known[str(model)]
    if path.is_dir():
        raise ModelFileError(f"{path}: is a folder; name the {_SUFFIX} file in it")
    if not path.exists():
        raise ModelFileError(
            f"{path}: there is no such model file; models that come with TNet: "
            f"{', '.join(known) or 'none'}"
        )
    return path


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or error})") from error


def _foreign(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return (
            f"{path}: is a pickled PyTorch file, which could run code when loaded and is never "
            "opened; save the model with tnet.save"
        )
    return f"{path}: is not a TNet model file, or is truncated; copy it again or name another"


def _rebuild(header: dict[str, Any], path: Path) -> TNet:
    """Build the model that a header describes, without its weights."""
    try:
        options = dict(header["options"])
        model = _built(str(header["recipe"]), options, path)
        model.plan = Plan.from_dict(header["plan"])
        expects = header["expects"]
        if int(expects["bands"]) != model.expects.bands:
            raise UsageError(
                f"it expects {counted(int(expects['bands']), 'band')} and is made for "
                f"{model.expects.bands}"
            )
        model.expect(
            Input(
                bands=int(expects["bands"]),
                dtype=str(expects["dtype"]),
                mean=tuple(float(v) for v in expects["mean"]),
                std=tuple(float(v) for v in expects["std"]),
                mpp=None if expects["mpp"] is None else float(expects["mpp"]),
            )
        )
        classes = tuple(str(name) for name in header["classes"])
        if len(set(classes)) != model.classifier.linear.out_features:
            raise UsageError(f"it names {len(set(classes))} different classes")
        model.classes = classes
        model.training_record = dict(header["training"])
        model.multilabel = bool(header.get("multilabel", False))
        model.calibration = float(header.get("calibration", 1.0))
        if not 0 < model.calibration < math.inf:
            raise UsageError(f"its calibration must be above 0, and is {model.calibration}")
    except ModelFileError:
        raise
    except TNetError as error:
        raise ModelFileError(f"{path}: cannot be rebuilt: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RuntimeError) as error:
        raise ModelFileError(f"{path}: the model's header is damaged ({error!r})") from error
    return model


def _built(recipe: str, options: dict[str, Any], path: Path) -> TNet:
    """Build a model, once its shapes alone have shown that the file's weights fit.

    A header can ask for a network of any size; one without memory for its weights costs nothing.
    """
    with torch.device("meta"):
        skeleton = build(recipe, **options)
    _check_shapes(skeleton, path)
    return build(recipe, **options)


def _check_shapes(model: TNet, path: Path) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    with safe_open(path, framework="pt") as file:
        wrong = sorted(set(file.keys()).symmetric_difference(wanted))
        if not wrong:
            wrong = [n for n in wanted if tuple(file.get_slice(n).get_shape()) != wanted[n]]
    if wrong:
        raise ModelFileError(
            f"{path}: the weights do not fit the model that its header describes, "
            f"beginning with {wrong[0]!r}"
        )


def _fill(model: TNet, path: Path) -> None:
    """Give the model the file's weights, which must fit exactly."""
    _check_shapes(model, path)
    state = {}
    with safe_open(path, framework="pt") as file:
        for name, wanted in model.state_dict().items():
            stored = file.get_tensor(name)
            if stored.is_floating_point() != wanted.is_floating_point():
                raise ModelFileError(f"{path}: the weights {name!r} are of the type {stored.dtype}")
            state[name] = stored.to(wanted.dtype)
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise ModelFileError(
                f"{path}: the weights {name!r} hold NaN or infinity; the training that made "
                "this file went wrong"
            )
    model.load_state_dict(state)
