"""The seal of a store: which files it consists of, how long they are, and what is in them.

It is the last file written: the attributes of an empty zarr group called "seal", so that no reader
stumbles over a file that it does not know. A store that has one is complete, so there a missing
chunk is damage; a store without one may be sparse.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tnet.errors import DataError

SEAL = "seal/zarr.json"
SCHEMA = "tnet.seal/1"

_METADATA = "zarr.json"
_MOST_BYTES = 2**28  # of a seal: two million files


@dataclass(frozen=True)
class Sealed:
    """What a file of a store has to be: its length in bytes, and its 128-bit XXH3 in hex."""

    size: int
    xxh3: str


@dataclass(frozen=True)
class Seal:
    """The list of a store's files, by their path inside it with "/" between.

    Attributes:
        files: of the store, the seal itself left out.
        source: what the store was made from, for a repair: ``name``, ``size`` and ``head``.
        settings: how it was made.
    """

    files: Mapping[str, Sealed]
    source: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the file's content: one JSON document that holds its own digest."""
        body = {
            "schema": SCHEMA,
            "source": dict(self.source),
            "settings": dict(self.settings),
            "files": {name: [f.size, f.xxh3] for name, f in self.files.items()},
        }
        attributes = body | {"xxh3": digest_of(_canonical(body))}
        return _canonical({"zarr_format": 3, "node_type": "group", "attributes": attributes})

    def check_metadata(self, store: Path) -> None:
        """Compare the zarr.json files of a store, which are small, with what was sealed.

        Raises:
            DataError: if one is missing, or is not what it was.
        """
        for name, wanted in self.files.items():
            if PurePosixPath(name).name == _METADATA and (fault := difference(store, name, wanted)):
                raise DataError(f"{store}: its {name} {fault}; run `tnet verify` on it")


def read_seal(store: Path) -> Seal | None:
    """Return the seal of a store, None where it has none.

    Raises:
        DataError: if the seal is damaged, or of a version that is not known.
    """
    path = store / SEAL
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} is too large to be a seal; make the store again")
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        content = b""
    return parse_seal(content, store)


def parse_seal(content: bytes, store: object) -> Seal:
    """Return the seal from its file's content.

    Args:
        content: of the file.
        store: what it belongs to, for messages.

    Raises:
        DataError: if it is damaged, or of a version that is not known.
    """
    try:
        return _parsed(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"the seal of {store} is damaged, so nobody can tell whether the store is whole; "
            "run `tnet verify --repair SOURCE` on it, or make it again"
        ) from error


def difference(store: Path, name: str, wanted: Sealed) -> str | None:
    """Return how a file differs from what was sealed, as the end of a sentence, or None."""
    path = store / name
    try:
        if path.is_symlink():
            return "has become a link to somewhere else"
        size = path.stat().st_size
        if size != wanted.size:
            return f"has {size} bytes instead of {wanted.size}"
        with path.open("rb") as file:
            found = hashlib.file_digest(file, new_digest).hexdigest()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return None if found == wanted.xxh3 else "has been changed or damaged"


def new_digest() -> Any:
    """Return what digests bytes: XXH3 is as fast as memory, and damage is no adversary."""
    import xxhash

    return xxhash.xxh3_128()


def digest_of(content: bytes) -> str:
    """Return the digest of some bytes in hex."""
    digest = new_digest()
    digest.update(content)
    return str(digest.hexdigest())


def _parsed(content: bytes) -> Seal:
    values = json.loads(content)["attributes"]
    files = {
        str(name): Sealed(int(size), str(digest))
        for name, (size, digest) in values["files"].items()
    }
    seal = Seal(files, values["source"], values["settings"])
    # To the last byte: a flipped bit that leaves the JSON readable shows here as well.
    if values["schema"] != SCHEMA or seal.to_bytes() != content:
        raise ValueError
    return seal


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode() + b"\n"
