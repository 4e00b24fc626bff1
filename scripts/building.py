"""The model that a training begins with: its recipe, its pixels, and its first weights."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tnet.errors import UsageError
from tnet.model import Input, TNet
from tnet.plan import Plan
from tnet.recipes import RECIPES, build
from tnet.scripts.config import Config
from tnet.scripts.planning import Sizes, plan_for, says_plan
from tnet.scripts.rules import parts_for
from tnet.scripts.weights import Source, fill_backbone, fill_parts, read_source

# Batch norms of fewer images know too little of all images.
SMALL_BATCH = 8
_OPTIONS = (
    "backbone",
    "stride",
    "aggregate",
    "features",
    "location",
    "scout",
    "scout_stride",
    "dropout",
)


@dataclass(frozen=True)
class Traits:
    """What the training images have in common.

    Attributes:
        classes: names, in the order of the logits.
        multilabel: whether an image may have several.
        bands, dtype: of the pixels.
        sizes: of the images.
        statistics: returns mean and standard deviation of each band; called only if needed.
    """

    classes: tuple[str, ...]
    multilabel: bool
    bands: int
    dtype: str
    sizes: Sizes
    statistics: Callable[[], tuple[tuple[float, ...], tuple[float, ...]]]


@dataclass(frozen=True)
class Built:
    """A model before its training.

    Attributes:
        model: its plan and the pixels that it expects are set.
        freeze: what of it stays as it is: "none", "backbone" or "norms".
        notes: what the user should know of it, a sentence each.
    """

    model: TNet
    freeze: str
    notes: tuple[str, ...]


def built(config: Config, traits: Traits) -> Built:
    """Build the model that a configuration asks for.

    Args:
        config: the training's.
        traits: what is known of the training images.

    Raises:
        UsageError: if options, plan and weights do not fit each other.
        DataError: if weights cannot be read or do not fit.
    """
    if config.start and config.pretrained:
        raise UsageError("a model to start from has its own backbone; give --from or --pretrained")
    source = read_source(config.start or config.pretrained, config.backbone)
    recipe, options = _recipe(config, source)
    options |= {"classes": list(traits.classes), "bands": traits.bands}
    norm, freeze, notes = _norms(config, recipe, options, source)
    if norm is not None:
        options["norm"] = norm
    torch.manual_seed(config.seed)
    model = build(recipe, **options)
    # An attribute that the model's file keeps; recipes build for one label an image.
    model.multilabel = traits.multilabel
    if source is not None:
        fill = fill_backbone if config.start is None else fill_parts
        notes.append(fill(model, source))
    model.expect(_pixels(source, traits))
    model.plan = _plan(config, traits, source, model.plan)
    if freeze == "backbone" and source is None:
        notes.append(
            "the backbone has learned nothing, and frozen it never will: name weights for it with "
            "--pretrained or --from"
        )
    return Built(model, freeze, tuple(notes))


def _plan(config: Config, traits: Traits, source: Source | None, usual: Plan) -> Plan:
    """Return the plan: that of the model to start from, unless another one is asked for."""
    if config.start is None or source is None or source.model is None:
        return plan_for(config, traits.sizes, usual)
    own = source.model.plan
    step = own.step(0)
    if step is not None and step.glimpses and not says_plan(config):
        return own
    return plan_for(config, traits.sizes, own)


def _recipe(config: Config, source: Source | None) -> tuple[str, dict[str, Any]]:
    """Return the recipe and the options that are not its own; those of a source come first."""
    recipe = config.recipe or "default"
    options: dict[str, Any] = {}
    own = source.model if source is not None else None
    if own is not None and own.recipe is not None:
        made, known = own.recipe
        if config.start is not None and config.recipe in (None, made):
            recipe, options = made, dict(known)
        elif made == recipe:
            options = {name: known[name] for name in ("backbone", "norm") if name in known}
    if config.model == "tiles":
        options["aggregate"] = "attention"
    if config.start is None:
        options |= parts_for(config, recipe)
    if config.scout is not None:
        # It has learned nothing yet, so that no statistics of batches need to be kept.
        options["scout_norm"] = "group"
    options |= {
        name: getattr(config, name) for name in _OPTIONS if getattr(config, name) is not None
    }
    return recipe, options | (config.options or {})


def _norms(
    config: Config, recipe: str, options: dict[str, Any], source: Source | None
) -> tuple[str | None, str, list[str]]:
    """Return the norm for the recipe (None leaves it), what is frozen, and what to say of both."""
    has_choice = recipe in RECIPES and "norm" in inspect.signature(RECIPES[recipe]).parameters
    freeze, notes = config.freeze, []
    if config.norm != "auto":
        norm = config.norm
    elif source is None and has_choice:
        norm = "group"
        notes.append("group norms take the place of batch norms, for any batch size (norm=batch)")
    else:
        norm = options.get("norm", "batch")
    if freeze == "auto" and config.model == "tiles":
        freeze = "backbone"
        notes.append("the backbone is frozen, and its features are kept in the run (freeze=none)")
    elif freeze == "auto" and norm == "batch" and config.batch < SMALL_BATCH:
        freeze = "norms"
        notes.append(
            f"batch norms keep their statistics, for a batch of {config.batch} is too small to "
            "make new ones (freeze=none)"
        )
    elif freeze == "auto":
        freeze = "none"
    return (norm if has_choice or config.norm != "auto" else None), freeze, notes


def _pixels(source: Source | None, traits: Traits) -> Input:
    """Return the pixels that the model is to expect."""
    known = None if source is None else source.expects
    mpp = traits.sizes.mpp
    if known is not None and known.bands == traits.bands and known.dtype == traits.dtype:
        return replace(known, mpp=mpp or known.mpp)
    mean, std = traits.statistics()
    return Input(bands=traits.bands, dtype=traits.dtype, mean=mean, std=std, mpp=mpp)


def place_of(classes: Sequence[str], name: str | None) -> int:
    """Return the index of a class, or -100 for none.

    Raises:
        UsageError: if there is no such class.
    """
    if name is None:
        return -100
    if name not in classes:
        raise UsageError(f"absent names the class {name!r}; there are {', '.join(classes)}")
    return list(classes).index(name)
