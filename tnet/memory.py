"""Remembered looks: what a frozen backbone made of a view need not be made again.

The feature of a view depends on the backbone, the image and the region alone while nothing of
these changes. Features are kept as float32, which holds what every precision of the backbone
gives exactly. What is recalled is what was seen; it differs from another look only as far as a
backbone's rounding depends on how many views it is given at once.

G visits, D features.
"""

import hashlib
import os
import struct
import weakref
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tnet.descent import Visit
from tnet.errors import DataError, UsageError
from tnet.geometry import Region
from tnet.model import TNet
from tnet.plan import Plan
from tnet.pyramid import Pyramid

try:
    import fcntl
except ImportError:  # not on Windows, where two writers of one file are not told apart
    fcntl = None  # type: ignore[assignment]

_KEY = 16  # bytes
_MAGIC = b"tnet looks\0\1"
_HEADER = struct.Struct(f"<{len(_MAGIC)}sI")
_BLOCK = 2**24  # bytes of the file that are read at once
_THUMBNAIL = (64, 64)
_PARTS = 2**13  # of a pixel


class Memory:
    """Pooled features by image and region, in memory and, if wished, in a file.

    The file is only ever appended to. A record that a kill cut short is taken away when the file
    is opened again, one that was damaged otherwise is passed over. One process writes at a time:
    another one uses what the file held when it was opened, and keeps its own looks in memory.

    Args:
        path: of the file; it is made where there is none. None keeps looks in memory alone.
        features: length D of a feature.
        most_bytes: of features in memory; what comes after is looked at again each time.

    Attributes:
        problem: why the file is written no further, if it is not.

    Raises:
        DataError: if the file cannot be opened, or is of something else.
    """

    def __init__(self, path: Path | None, features: int, most_bytes: int = 2**31) -> None:
        self.path = path
        self.features = features
        self.problem: str | None = None
        self._most = most_bytes // (4 * features)
        self._rows: dict[bytes, NDArray[np.float32]] = {}
        self._images: weakref.WeakKeyDictionary[Pyramid, bytes] = weakref.WeakKeyDictionary()
        self._model: tuple[object, bytes] | None = None
        self._file: Any = None
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("a+b", buffering=0)
                alone = _alone(self._file)
                self._load(alone)
            except OSError as error:
                raise DataError(
                    f"{path}: remembered looks cannot be kept there ({error.strerror or error})"
                ) from error
            if not alone:
                self.problem = (
                    f"{path} is being written by another process; what it held is used, and new "
                    "looks are kept in memory alone"
                )
                self.close()

    def __len__(self) -> int:
        """Return how many looks are remembered."""
        return len(self._rows)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Memory":
        """Return the memory itself: copies of a training share it."""
        return self

    def close(self) -> None:
        """Close the file; what is in memory stays known."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> "Memory":
        """Return the memory itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close its file."""
        self.close()

    def keys(
        self,
        model: TNet,
        plan: Plan,
        pyramids: Sequence[Pyramid],
        visits: Sequence[Visit],
    ) -> list[bytes]:
        """Return what each visit's look is remembered under, one a visit.

        Args:
            model: looks; its weights, normalisation and precision are part of the key.
            plan: says how views are read.
            pyramids: the images; size and pixels, from afar, are part of the key.
            visits: below the first look.

        Raises:
            UsageError: if the backbone is not frozen or has features of another length.
        """
        how = repr((plan.view, plan.resampling, plan.outside)).encode()
        common = self._of_model(model) + how
        starts = {i: common + self._of_image(pyramids[i]) for i in {v.image for v in visits}}
        return [
            hashlib.blake2b(starts[v.image] + _place(v.region, v.valid), digest_size=_KEY).digest()
            for v in visits
        ]

    def known(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Return those of the looks that are remembered, key -> float32 (D,)."""
        return {key: self._rows[key] for key in keys if key in self._rows}

    def add(self, looks: Mapping[bytes, NDArray[np.float32]], pyramid: Pyramid) -> None:
        """Remember looks at an image, as many as there is room for.

        None is remembered of an image that looks otherwise by now: a reader may show blank
        pixels where it can read no more, lest a training end there.

        Args:
            looks: key -> float32 (D,).
            pyramid: the image.
        """
        if _seen_from_afar(pyramid) != self._of_image(pyramid):
            return
        room = self._most - len(self._rows)
        new = [item for item in looks.items() if item[0] not in self._rows][: max(room, 0)]
        self._rows |= new
        if self._file is None or not new:
            return
        records = b"".join(_record(key, feature) for key, feature in new)
        try:
            written = self._file.write(records)
            if written != len(records):
                raise OSError("no space left for all of it")
        except OSError as error:
            self.problem = f"{self.path}: looks are kept in memory alone from here on ({error})"
            self.close()

    def _of_model(self, model: TNet) -> bytes:
        """Return what stands for a model's way of looking; hashed anew when weights change."""
        backbone = model.backbone
        frozen = not backbone.training and not any(p.requires_grad for p in backbone.parameters())
        if not frozen:
            raise UsageError(
                "looks can be remembered only of a frozen backbone: in evaluation mode, with no "
                "parameter that asks for gradients"
            )
        if getattr(backbone, "features", self.features) != self.features:
            raise UsageError(
                f"the memory is of {self.features} features and the backbone gives "
                f"{backbone.features}"
            )
        state = backbone.state_dict()
        # Weights that were made under inference mode count no versions, and never change.
        versions = [0 if t.is_inference() else t._version for t in state.values()]
        where = (weakref.ref(backbone), versions)
        if self._model is None or self._model[0] != where:
            digest = hashlib.blake2b(digest_size=_KEY)
            for name, tensor in state.items():
                values = tensor.detach().cpu().reshape(-1).view(torch.uint8)
                digest.update(name.encode() + values.numpy().tobytes())
            self._model = (where, digest.digest())
        device = model.device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        return self._model[1] + repr((model.expects, precision)).encode()

    def _of_image(self, pyramid: Pyramid) -> bytes:
        """Return what stands for an image: how it looked when it was first seen."""
        known = self._images.get(pyramid)
        if known is None:
            known = self._images[pyramid] = _seen_from_afar(pyramid)
        return known

    def _load(self, alone: bool) -> None:
        """Read what the file holds; if nobody else writes, make it end with a whole record."""
        header = _HEADER.pack(_MAGIC, self.features)
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        start = self._file.read(_HEADER.size)
        if size < _HEADER.size and header.startswith(start):
            if alone:
                self._file.truncate(0)
                self._file.write(header)
            return
        if start != header:
            self.close()
            raise DataError(
                f"{self.path}: does not hold looks of {self.features} features; remove it, or "
                "name another file"
            )
        layout = np.dtype([("key", f"V{_KEY}"), ("feature", "<f4", self.features), ("sum", "<u4")])
        whole = (size - _HEADER.size) // layout.itemsize
        if alone:
            self._file.truncate(_HEADER.size + whole * layout.itemsize)
        whole = min(whole, self._most)
        many = max(1, _BLOCK // layout.itemsize)
        for first in range(0, whole, many):
            block = self._file.read(min(many, whole - first) * layout.itemsize)
            records = np.frombuffer(block, layout, len(block) // layout.itemsize)
            for i, checksum in enumerate(records["sum"].tolist()):
                body = memoryview(block)[i * layout.itemsize : (i + 1) * layout.itemsize - 4]
                if zlib.crc32(body) == checksum:
                    self._rows[bytes(body[:_KEY])] = records["feature"][i]


def _alone(file: Any) -> bool:
    """Hold a file for writing until it is closed, and return whether nobody else does."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _seen_from_afar(pyramid: Pyramid) -> bytes:
    """Return a hash of an image's name, facts and thumbnail."""
    whole = Region(0.0, 0.0, pyramid.width, pyramid.height)
    thumbnail = pyramid.read(whole, _THUMBNAIL, dtype=np.float32)
    facts = (pyramid.name, pyramid.width, pyramid.height, pyramid.bands)
    values = (str(pyramid.dtype), pyramid.nodata, pyramid.background)
    digest = hashlib.blake2b(repr((facts, values)).encode(), digest_size=_KEY)
    digest.update(np.ascontiguousarray(thumbnail).tobytes())
    return digest.digest()


def _record(key: bytes, feature: NDArray[np.float32]) -> bytes:
    body = key + np.asarray(feature, "<f4").tobytes()
    return body + zlib.crc32(body).to_bytes(4, "little")


def _place(region: Region, valid: Region | None) -> bytes:
    """Return the bytes of a region and of what of the image it may show.

    To a part of a pixel that no reader tells apart: the tiles of an image and a grid's cells on
    the same places differ in the last digit, and are the same looks.
    """
    parts = [region] if valid is None else [region, valid]
    sides = [side for part in parts for side in (part.x, part.y, part.width, part.height)]
    return struct.pack(f"<{len(sides)}d", *(round(side * _PARTS) / _PARTS for side in sides))
