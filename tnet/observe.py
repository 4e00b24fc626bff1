"""Reading the views of a level and looking at them, in micro-batches of bounded size."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tnet.background import cell_shares, foreground
from tnet.descent import Visit
from tnet.geometry import Grid
from tnet.memory import Memory
from tnet.model import Look, TNet
from tnet.plan import Plan
from tnet.pyramid import Pyramid
from tnet.threads import of_each


@dataclass
class Level:
    """What the network made of the views of one level, micro-batch by micro-batch.

    Attributes:
        look: float (M, D) each, the pooled features.
        logits: float (M, N) each, over the candidates; none where the walk ends.
        shares: float64 (N,) a view, how much of each candidate is foreground; none where the
            plan does not ask. A first view without candidates is asked in eighths of its sides.
    """

    look: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    shares: list[NDArray[np.float64]] = field(default_factory=list)


def observe(
    model: TNet,
    pyramids: Sequence[Pyramid],
    front: Sequence[Visit],
    grid: Grid | None,
    *,
    plan: Plan,
    micro_batch: int | None,
    memory: Memory | None = None,
) -> Level:
    """Read and look at all views of a level.

    Args:
        model: looks, and locates where there is a grid.
        pyramids: the batch's images.
        front: what to look at, all of one level.
        grid: the candidates to locate; None where the walk ends.
        plan: the walk's.
        micro_batch: views in memory and in the backbone at once; None is all of them.
        memory: of looks; serves where the walk ends below the first look.
    """
    first = front[0].level == 0
    size = micro_batch or len(front)
    if memory is not None and grid is None and not first:
        return Level([_recalled(model, pyramids, front, plan, size, memory)])
    level = Level()
    asked = None
    if plan.background is not None:
        asked = grid or (Grid(8, 8, 1 / 8) if first else None)
    for visits, views, look in _looks(model, pyramids, front, plan, size):
        if asked is not None:
            level.shares.extend(
                cell_shares(foreground(view, pyramids[visit.image]), visit.region, asked)
                for visit, view in zip(visits, views, strict=True)
            )
        level.look.append(look.feature)
        if grid is not None:
            level.logits.append(model.locate(look, grid, first))
    return level


def _looks(
    model: TNet, pyramids: Sequence[Pyramid], front: Sequence[Visit], plan: Plan, size: int
) -> Iterator[tuple[Sequence[Visit], NDArray[Any], Look]]:
    """Yield micro-batches of visits with their pixels and what the network made of them."""
    batches = [front[i : i + size] for i in range(0, len(front), size)]
    first = front[0].level == 0
    for visits, views in _prefetched(batches, lambda v: _read(model, pyramids, v, plan)):
        given = _given(views, [pyramids[visit.image] for visit in visits])
        tensor = torch.from_numpy(given).to(model.device).permute(0, 3, 1, 2)
        yield visits, views, model.look(tensor, first)


def shown(
    model: TNet, pyramids: Sequence[Pyramid], visits: Sequence[Visit], plan: Plan
) -> NDArray[Any]:
    """Return what the network is given of visits of one level's size, (G, height, width, bands).

    The pixels before normalisation: uint8, or float32, in which missing pixels are NaN.
    """
    views = _read(model, pyramids, visits, plan)
    return _given(views, [pyramids[visit.image] for visit in visits])


def _recalled(
    model: TNet,
    pyramids: Sequence[Pyramid],
    front: Sequence[Visit],
    plan: Plan,
    size: int,
    memory: Memory,
) -> Tensor:
    """Return the features of visits, float32 (G, D); only what is not remembered is looked at.

    Visits come image by image.
    """
    keys = memory.keys(model, plan, pyramids, front)
    rows = memory.known(keys)
    # A region that several walks of a batch came to is looked at once.
    missing = {key: visit for key, visit in zip(keys, front, strict=True) if key not in rows}
    if not missing:
        return _gathered(rows, keys, model)
    names = iter(missing)
    fresh: dict[bytes, NDArray[np.float32]] = {}
    image = next(iter(missing.values())).image
    for visits, _, look in _looks(model, pyramids, list(missing.values()), plan, size):
        features = look.feature.detach().float().cpu().numpy()
        for visit, feature in zip(visits, features, strict=True):
            # What is kept now is safe if the run is killed at a later image.
            if visit.image != image:
                memory.add(fresh, pyramids[image])
                image, fresh = visit.image, {}
            key = next(names)
            fresh[key] = rows[key] = feature
    memory.add(fresh, pyramids[image])
    return _gathered(rows, keys, model)


def _gathered(
    rows: Mapping[bytes, NDArray[np.float32]], keys: Sequence[bytes], model: TNet
) -> Tensor:
    return torch.from_numpy(np.stack([rows[key] for key in keys])).to(model.device)


def _prefetched(
    batches: Sequence[Sequence[Visit]],
    read: Callable[[Sequence[Visit]], NDArray[Any]],
) -> Iterator[tuple[Sequence[Visit], NDArray[Any]]]:
    """Yield each batch with its pixels, reading the next while the last is looked at."""
    if len(batches) == 1:
        yield batches[0], read(batches[0])
        return
    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(read, batches[0])
        for number, batch in enumerate(batches):
            views = waiting.result()
            if number + 1 < len(batches):
                waiting = ahead.submit(read, batches[number + 1])
            yield batch, views


def _read(
    model: TNet, pyramids: Sequence[Pyramid], visits: Sequence[Visit], plan: Plan
) -> NDArray[Any]:
    """Read the visits' views, (G, height, width, bands), several images side by side.

    In the official form the views are float32, because rounding them would show in the result,
    and what lies outside the parents reads as the value that the network sees as zero.
    """
    options: dict[str, Any] = {}
    if plan.resampling == "official":
        options = {"resampling": "official", "dtype": np.float32}
    if plan.outside == "zero":
        options["fill"] = model.expects.mean
    of_image: dict[int, list[int]] = {}
    for i, visit in enumerate(visits):
        of_image.setdefault(visit.image, []).append(i)
    size = plan.view_at(visits[0].level)

    def views_of(image: int) -> Sequence[NDArray[Any]]:
        mine = [visits[i] for i in of_image[image]]
        if plan.outside == "zero":
            read = pyramids[image].read
            return [read(v.region, size, valid=v.valid, **options) for v in mine]
        return list(pyramids[image].read_many([v.region for v in mine], size, **options))

    images = sorted(of_image)
    views = {
        i: view
        for image, seen in zip(images, of_each(views_of, images), strict=True)
        for i, view in zip(of_image[image], seen, strict=True)
    }
    return np.stack([views[i] for i in range(len(visits))])


def _given(views: NDArray[Any], pyramids: Sequence[Pyramid]) -> NDArray[Any]:
    """Return views as the model takes them, missing pixels as NaN; 8-bit pixels stay 8-bit."""
    known = _without_nodata(views, pyramids)
    return known if known.dtype in (np.uint8, np.float32) else known.astype(np.float32)


def _without_nodata(views: NDArray[Any], pyramids: Sequence[Pyramid]) -> NDArray[Any]:
    """Return views where missing pixels are NaN, which the model looks at as its mean."""
    if all(pyramid.nodata is None or np.isnan(pyramid.nodata) for pyramid in pyramids):
        return views
    shown = views.astype(np.float32)
    for view, pyramid, seen in zip(views, pyramids, shown, strict=True):
        if pyramid.nodata is not None:
            seen[(view == pyramid.nodata).all(axis=2)] = np.nan
    return shown
