"""The walk: level by level over a batch of images of any sizes.

First the regions are chosen, then only those are read; all glimpses of a level, of all images,
go through the backbone together, in micro-batches of bounded size.

B images, G glimpses of all of them, T glimpses of the longest walk, D features, K classes.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tnet.descent import Choice, Journey, Visit, descend, root
from tnet.errors import DataError, UsageError, counted
from tnet.inference import inferring
from tnet.memory import Memory
from tnet.model import TNet
from tnet.observe import Level, observe
from tnet.plan import MOST_STEPS, Plan
from tnet.pyramid import Pyramid
from tnet.record import Walk
from tnet.recording import written
from tnet.sampling import Policy
from tnet.tiling import over_tiles
from tnet.trace import Trace, conclude

Seed = int | Sequence[int] | None

# A generator takes so many different seeds; others wrap around.
_SEEDS = 2**63


def traverse(
    model: TNet,
    pyramids: Sequence[Pyramid],
    plan: Plan | None = None,
    *,
    seed: Seed = None,
    policy: Policy | None = None,
    micro_batch: int | None = 32,
    memory: Memory | None = None,
) -> Trace:
    """Walk over a batch of images and classify them; the differentiable form of :func:`walk`.

    Args:
        model: where its backbone is in training mode each level is one batch for the batch
            norms, as released.
        pyramids: the images, of any sizes.
        plan: None takes the model's own.
        seed: a number for each image, or one that every image starts from; needed by policies
            that draw. An image's draws depend on its seed alone, not on its batch.
        policy: how cells are chosen; None takes the plan's.
        micro_batch: views in memory and in the backbone at once; None is all of a level.
        memory: of looks; needs a frozen backbone. A glimpse below which nothing is looked at is
            then looked at once in the memory's life.

    Raises:
        UsageError: if the model, the plan and an image do not fit, or a memory is given for a
            backbone that is not frozen.
        DataError: if an image cannot be read.
    """
    plan = plan or model.plan
    policy = policy or plan.policy
    for pyramid in pyramids:
        _check(model, pyramid)
    if plan.tiles_share < 1 and seed is None:
        raise UsageError("a share of the tiles is drawn at random and needs a seed")
    if policy != "greedy" and seed is None:
        raise UsageError(f"the policy {policy!r} draws at random and needs a seed")
    if micro_batch is not None and micro_batch < 1:
        raise UsageError(f"a micro-batch must hold at least one view, got {micro_batch}")
    if _learns(model):
        micro_batch = None
    draws = _generators(seed, len(pyramids))
    if plan.tiles is not None:
        return over_tiles(
            model, pyramids, plan, micro_batch=micro_batch, memory=memory, draws=draws
        )
    journey = Journey.start(pyramids, plan, policy, draws)
    return _down(model, journey, micro_batch, memory)


def _down(model: TNet, journey: Journey, micro_batch: int | None, memory: Memory | None) -> Trace:
    """Walk level by level until nothing more is to be looked at, and classify."""
    pyramids, plan = journey.pyramids, journey.plan
    front = [root(pyramid, plan, image) for image, pyramid in enumerate(pyramids)]
    visits: list[Visit] = []
    looks: list[Tensor] = []
    choices: list[Choice] = []
    empty = [False] * len(pyramids)
    while front:
        if front[0].level > MOST_STEPS:
            raise UsageError(
                f"the plan would go down more than {MOST_STEPS} levels; end it at a coarser "
                "resolution, or make its last step's patch smaller"
            )
        step = plan.step(front[0].level)
        grid = None if step is None or step.glimpses == 0 else step.grid(plan.rule)
        level = observe(
            model, pyramids, front, grid, plan=plan, micro_batch=micro_batch, memory=memory
        )
        first = len(visits)
        visits.extend(front)
        looks.extend(level.look)
        if first == 0:
            empty = _empty(level, plan) or empty
        if grid is None:
            break
        choice = descend(
            front,
            first,
            torch.cat(level.logits),
            np.stack(level.shares) if level.shares else None,
            journey,
        )
        choices.append(choice)
        front = choice.visits
    return conclude(model, visits, torch.cat(looks), choices, empty)


def walk(
    model: TNet,
    pyramids: Sequence[Pyramid],
    plan: Plan | None = None,
    *,
    seed: Seed = None,
    policy: Policy | None = None,
    micro_batch: int = 32,
    memory: Memory | None = None,
) -> list[Walk]:
    """Classify images by walking over them, and return one record each.

    Arguments and exceptions are those of :func:`traverse`. The model is used in evaluation
    mode and left in the mode that it was in.

    Raises:
        DataError: also if the network's answer is not a number, as for absurd pixel values.
    """
    plan = plan or model.plan
    plan = replace(plan, policy=policy or plan.policy)
    if not pyramids:
        return []
    started = time.perf_counter()
    with inferring(model):
        trace = traverse(model, pyramids, plan, seed=seed, micro_batch=micro_batch, memory=memory)
        contributions = model.contributions(trace.feature_GD, trace.weight_GD)
    seconds = (time.perf_counter() - started) / len(pyramids)
    drawn = plan.policy != "greedy"
    seeds = _seeds(seed, len(pyramids)) if drawn else [None] * len(pyramids)
    records = written(model, pyramids, plan, trace, contributions)
    return [
        replace(record, seconds=seconds, seed=number)
        for record, number in zip(records, seeds, strict=True)
    ]


def _learns(model: TNet) -> bool:
    """Say whether a backbone is in training mode."""
    eyes = [model.backbone] if model.scout is None else [model.backbone, model.scout.backbone]
    return any(eye.training for eye in eyes)


def _check(model: TNet, pyramid: Pyramid) -> None:
    expects = model.expects
    if pyramid.bands != expects.bands:
        raise DataError(
            f"{pyramid.name}: the image has {counted(pyramid.bands, 'band')} and the model "
            f"expects {expects.bands}; select some first: --bands, or tnet.adapters.select_bands"
        )
    if np.dtype(pyramid.dtype).newbyteorder("=") != np.dtype(expects.dtype):
        raise DataError(
            f"{pyramid.name}: the image's pixels are {pyramid.dtype} and the model expects "
            f"{expects.dtype}; map them first: --range LOW,HIGH, or tnet.adapters.rescale"
        )


def _empty(level: Level, plan: Plan) -> list[bool]:
    """Say of each image whether no candidate of its first view has enough foreground."""
    least = plan.background or 0.0
    return [bool(share.max() < least or share.max() == 0) for share in level.shares]


def _generators(seed: Seed, images: int) -> list[torch.Generator | None]:
    return [
        None if number is None else torch.Generator().manual_seed(number)
        for number in _seeds(seed, images)
    ]


def _seeds(seed: Seed, images: int) -> list[int | None]:
    """Return what each image's draws start from."""
    if seed is None:
        return [None] * images
    seeds = list(seed) if isinstance(seed, Sequence) else [seed] * images
    if len(seeds) != images:
        raise UsageError(f"{images} images need as many seeds, got {len(seeds)}")
    return [int(number) % _SEEDS for number in seeds]
