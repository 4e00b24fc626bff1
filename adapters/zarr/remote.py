"""Zarr stores on the network: http(s)://, s3:// and gs://, through tensorstore's key-value stores.

Metadata is fetched document by document, because most web servers list no folders.
"""

import os
from typing import Any

from tnet.adapters.limits import DEFAULT, Limits
from tnet.adapters.storage.seal import SEAL, Seal, digest_of, parse_seal
from tnet.adapters.zarr.opening import open_store
from tnet.adapters.zarr.sources import (
    DOCUMENT_BYTES,
    WHOLE_BYTES,
    cause_of,
    is_of_network,
    parsed,
    too_large,
    unreachable,
)
from tnet.adapters.zarr.stored import ZarrPyramid
from tnet.adapters.zarr.windows import forked_too_late, shared_context
from tnet.errors import DataError, UnsupportedImage

PATIENCE = 30.0  # seconds that an answer may take, retries included

_SEAL_BYTES = 2**28


class _TooShortError(Exception):
    """A file that does not have the bytes that were asked for."""


class Remote:
    """A store on the network.

    Args:
        url: of the store's root.

    Raises:
        DataError: if the network does not lead there, or the store's seal is damaged.
    """

    def __init__(self, url: str) -> None:
        import tensorstore

        context, owner = shared_context()
        if owner != os.getpid():
            raise forked_too_late(url)
        self.name = url
        self.patience = PATIENCE
        try:
            self._spec = tensorstore.KvStore.Spec(url).to_json()
            if self._spec["driver"] == "s3":
                self._spec |= _s3_settings()
            self._spec["path"] = self._spec.get("path", "").rstrip("/") + "/"
            self._kvstore = tensorstore.KvStore.open(self._spec, context=context).result(PATIENCE)
        except (ValueError, TimeoutError) as error:
            if is_of_network(error):
                raise unreachable(url, error) from error
            raise UnsupportedImage(
                f"{url} is no address that can be read ({cause_of(error)})"
            ) from error
        self._seal: Seal | None = None
        content = self._small(SEAL, _SEAL_BYTES)
        if content is not None:
            self._seal = parse_seal(content, url)
        self.sealed = self._seal is not None

    def where(self, key: str) -> str:
        """Return the address of a key."""
        return f"{self.name.rstrip('/')}/{key}".rstrip("/")

    def document(self, key: str) -> dict[str, Any] | None:
        """Return a JSON document, None where there is no such file."""
        content = self._small(key, DOCUMENT_BYTES)
        if content is None:
            return None
        sealed = None if self._seal is None else self._seal.files.get(key)
        if sealed is not None and digest_of(content) != sealed.xxh3:
            raise DataError(
                f"{self.where(key)} has been changed or damaged; run `tnet verify` on the store"
            )
        return parsed(content, self.where(key))

    def folders(self, key: str) -> list[str]:
        """Refuse to list a group, which servers do not do."""
        raise UnsupportedImage(
            f"{self.where(key)} is a group that does not tell its arrays (it has no multiscales "
            "and no consolidated metadata); name one of them"
        )

    def check(self, key: str) -> None:
        """Do nothing: there are no links on the network."""

    def stamp(self, key: str) -> tuple[int, ...]:
        """Return the same of every file, because asking would cost a round trip."""
        return ()

    def read(self, key: str, start: int, count: int | None) -> bytes | None:
        """Return bytes of a file, None where there is no such file."""
        if count is None:
            return self._small(key, WHOLE_BYTES)
        try:
            return self._bytes(key, slice(start, None if start < 0 else start + count))
        except _TooShortError as error:
            raise DataError("its file ends within it") from error

    def _small(self, key: str, most: int) -> bytes | None:
        """Return a whole file, refusing what is larger than ``most`` bytes."""
        try:
            # Only the last of these bytes: there is no other way to ask for a length.
            found = self._bytes(key, slice(most, most + 1))
        except _TooShortError:
            return self._bytes(key, slice(None))
        if found is None:
            return None
        raise too_large(self.where(key), most)

    def _bytes(self, key: str, part: slice) -> bytes | None:
        """Return some bytes of a file, None where there is no such file.

        Raises:
            _TooShortError: if the file does not have them.
            DataError: if the network fails.
        """
        try:
            found = self._kvstore.read(key, byte_range=part).result(self.patience)
        except (ValueError, TimeoutError) as error:
            if str(error).startswith("OUT_OF_RANGE"):
                raise _TooShortError from error
            if is_of_network(error):
                raise unreachable(self.name, error) from error
            raise DataError(f"{self.where(key)} cannot be read ({cause_of(error)})") from error
        return None if found.state == "missing" else bytes(found.value)

    def spec(self, key: str) -> dict[str, Any]:
        """Return what tensorstore calls the folder of a key."""
        folder = f"{self._spec['path']}{key}".rstrip("/")
        return {**self._spec, "path": f"{folder}/"}

    def close(self) -> None:
        """Keep nothing open."""


def _s3_settings() -> dict[str, Any]:
    """Return what AWS's variables say of a server: stores like S3 stand in many houses.

    Tensorstore asks the environment for keys, but neither for the address nor for the region of
    another server than Amazon's. Keys in the environment keep it from looking for files of keys,
    whose absence it complains of.
    """
    found: dict[str, Any] = {}
    if endpoint := _variable("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        region = _variable("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1"
        found = {"endpoint": endpoint.rstrip("/"), "aws_region": region}
    if _variable("AWS_ACCESS_KEY_ID"):
        found["aws_credentials"] = {"type": "environment"}
    return found


def _variable(*names: str) -> str | None:
    """Return the first of these environment variables that is set to anything."""
    return next((value for name in names if (value := os.environ.get(name))), None)


def open_remote(url: str, limits: Limits = DEFAULT) -> ZarrPyramid:
    """Open a zarr store on the network as an image.

    Args:
        url: http://, https://, s3:// or gs://, of the store's root.
        limits: what it may declare.

    Raises:
        UnsupportedImage: if there is no zarr image, or one of a kind that is not read.
        DataError: if the network does not lead there, or the store is damaged.
    """
    return open_store(Remote(url), limits)
