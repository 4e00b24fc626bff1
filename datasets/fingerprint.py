"""What data was it? A hash of every byte that a model learned from."""

import hashlib
from pathlib import Path


def fingerprint(folder: Path) -> str:
    """Return the SHA-256 of all files below a folder, names and contents, in hexadecimal.

    Names are relative to the folder and sorted, so that a copy elsewhere has the same hash.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
