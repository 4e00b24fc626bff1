"""Files that lie are refused before memory is taken for them, in one sentence, and in time."""

import json
import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hostile_tiffs import Page, Tag, number, striped, text, tiff, tiled
from make_images import truth, write_picture

from tnet.adapters import Limits, open_pyramid
from tnet.adapters.directories import check_directories
from tnet.errors import DataError, UnsupportedImage

ROOT = Path(__file__).resolve().parents[1]

SECONDS = 5.0
MEGABYTES = 400  # that all of the files together may add to the process

VENDOR = b"Aperio Image Library v11.0\n64x64 (64x64) |AppMag = 20|MPP = 0.5"
APERIO = text(VENDOR)
YCBCR = tiled(t262=Tag(3, (6,)))
HUGE = 10**9

# Opens and reads the files named on its command line; a line of JSON each, flushed, so that what
# ends the process is seen to have done so.
LOOK = """
import json, sys, time
from pathlib import Path
from tnet.adapters import Limits, open_pyramid
from tnet.errors import DataError
from tnet.geometry import Region

def peak():
    lines = Path("/proc/self/status").read_text().splitlines() if sys.platform == "linux" else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), 0)

memory = int(sys.argv[1])
for name in sys.stdin.read().splitlines():
    started, before, said, kind = time.monotonic(), peak(), "", "read"
    try:
        with open_pyramid(name, limits=Limits(memory=memory)) as image:
            for x, y in ((0, 0), (image.width - 64, image.height - 64)):
                image.read(Region(x, y, 64, 64), (64, 64))
            image.read(Region(0, 0, 256, 256), (16, 16))
    except DataError as error:
        said, kind = str(error), "DataError"
    except BaseException as error:
        said, kind = str(error), type(error).__name__
    took = time.monotonic() - started
    print(json.dumps([name, kind, said, took, peak() - before]), flush=True)
"""


@dataclass(frozen=True)
class Outcome:
    """What came of a file: "read", "DataError" or another exception's name."""

    name: str
    kind: str
    said: str
    seconds: float
    megabytes: int


def look(paths: list[Path], memory: int = 2**32) -> dict[Path, Outcome]:
    """Open and read files in a process of their own; fail if they end it, or if it hangs."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(memory)],
        input="\n".join(map(str, paths)),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=120,
    )
    found = [Outcome(*json.loads(line)) for line in done.stdout.splitlines()]
    culprit = paths[len(found)] if len(found) < len(paths) else None
    assert culprit is None, f"{culprit} ended the process with {done.returncode}: {done.stderr}"
    return {Path(outcome.name): outcome for outcome in found}


def jpeg(side: int = 64, claims: int | None = None) -> bytes:
    """Return a JPEG that may claim to be larger than it is."""
    data = bytes(imagecodecs.jpeg_encode(truth(size=(side, side)), level=80))
    if claims is None:
        return data
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", claims, claims) + data[place + 4 :]


def jpeg_2000(claims: int) -> bytes:
    data = bytes(imagecodecs.jpeg2k_encode(truth(size=(64, 64)), codecformat="j2k"))
    sides = struct.pack(">II", claims, claims)
    return data[:8] + sides + data[16:24] + sides + data[32:]


def png(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, pixels, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bmp(width: int, height: int) -> bytes:
    start = struct.pack("<2sIHHI", b"BM", 1000, 0, 0, 54)
    return start + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def compressed(codec: int, data: bytes, page: Page) -> bytes:
    """Return a TIFF of one piece."""
    lengths = 325 if 325 in page else 279
    return tiff({**page, 259: Tag(3, (codec,)), lengths: number(len(data))}, pixels=data)


def circle(pages: int, to: int) -> bytes:
    """Return a TIFF whose last page is followed by an earlier one."""
    small = {256: number(1), 257: number(1)}
    first = struct.unpack_from("<I", tiff(small), 4)[0]
    step = struct.unpack_from("<I", tiff(small, small), first + 2 + 24)[0] - first
    return tiff(*[small] * pages, last=first + to * step)


def many_pages(count: int) -> bytes:
    """Return a TIFF of tiny pages."""
    pages = np.zeros(count, np.dtype("<u2, <u2, <u2, <u4, <u4, <u4"))
    for name, value in zip(("f0", "f1", "f2", "f3", "f4"), (1, 256, 4, 1, 1), strict=True):
        pages[name] = value
    pages["f5"][:-1] = 8 + pages.itemsize * np.arange(1, count)
    return struct.pack("<2sHI", b"II", 42, 8) + pages.tobytes()


def many_tags() -> bytes:
    data = bytearray(tiff(tiled()))
    place = struct.unpack_from("<I", data, 4)[0]
    data[place : place + 2] = b"\xff\xff"
    return bytes(data) + bytes(2**20)


def bomb(levels: int = 9) -> Tag:
    """Return OME-XML whose text is ten to the ninth times as long as it looks."""
    entities = "".join(
        f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "laughter"}">' for i in range(levels + 1)
    )
    return text(f'<?xml version="1.0"?><!DOCTYPE o [{entities}]><OME>&a{levels};</OME>'.encode())


def nested(depth: int) -> Tag:
    return text(b"<OME>" + b"<a>" * depth + b"</a>" * depth + b"</OME>")


def ome(inside: str) -> bytes:
    return tiff(tiled(t270=text(f"<OME><Image>{inside}</Image></OME>".encode())))


def zipped() -> bytes:
    return b"PK\x03\x04" + bytes(300)


def smaller_copy(page: Page) -> bytes:
    """Return a TIFF of one honest page that names another one as its smaller copy only."""
    place = struct.unpack_from("<I", tiff(page), 4)[0]
    data = bytearray(tiff(page, tiled(t330=number(place))))
    data[4:8] = data[place + 2 + 12 * len(page) :][:4]
    return bytes(data)


def own_copies(count: int) -> bytes:
    """Return a TIFF whose page lists itself as its smaller copies."""
    place = struct.unpack_from("<I", tiff(tiled(t330=number(*[16] * count))), 4)[0]
    return tiff(tiled(t330=number(*[place] * count)))


# file name, content, what the sentence says, and how long the file pretends to be
Case = tuple[str, Callable[[], bytes], str, int]
CASES: dict[str, Case] = {
    "pixels": ("i.tif", lambda: tiff(tiled((HUGE, HUGE))), "--max-pixels", 0),
    "pixels-strips": ("i.tif", lambda: tiff(striped((HUGE, HUGE))), "--max-pixels", 0),
    "pixels-slide": ("i.svs", lambda: tiff(tiled((HUGE, HUGE), t270=APERIO)), "--max-pixels", 0),
    "pixels-big": ("i.tif", lambda: tiff(tiled((HUGE, HUGE)), big=True), "--max-pixels", 0),
    "second-page": (
        "i.tif", lambda: tiff(tiled(), tiled((HUGE, HUGE), t254=number(1))), "--max-pixels", 0,
    ),
    "sub-page": (
        "i.tif", lambda: smaller_copy(tiled((HUGE, HUGE))), "--max-pixels", 0,
    ),
    "no-pixels": ("i.tif", lambda: tiff(tiled((0, 64))), "has 0 x 64 pixels", 0),
    "negative": ("i.tif", lambda: tiff(tiled(t256=Tag(9, (-64,)))), "-64 x 64 pixels", 0),
    "tile": ("i.tif", lambda: tiff(tiled((65520,) * 2, (65520,) * 2)), "--max-memory", 0),
    "tile-slide": (
        "i.svs", lambda: compressed(7, jpeg(), tiled((65520,) * 2, (65520,) * 2, t270=APERIO)),
        "--max-memory", 0,
    ),
    "tile-without-pixels": ("i.svs", lambda: tiff(tiled(tile=(0, 64), t270=APERIO)),
                            "tiles of 0 x 64", 0),
    "tile-depth": ("i.tif", lambda: tiff(tiled(t32998=number(10**6))), "--max-memory", 0),
    "strip": (
        "i.tif", lambda: compressed(8, zlib.compress(b"0"), striped((60000,) * 2, 60000)),
        "--max-memory", 0,
    ),
    "bands": ("i.tif", lambda: tiff(tiled((2048,) * 2, (2048,) * 2, t277=number(60000))),
              "--max-memory", 0),
    "tile-length": (
        "i.svs", lambda: tiff(tiled(t325=Tag(16, (2**60,)), t270=APERIO), big=True),
        "--max-memory", 0,
    ),
    "tile-outside": ("i.tif", lambda: tiff(tiled(t324=number(HUGE))), "is truncated", 0),
    "tile-outside-slide": (
        "i.svs", lambda: tiff(tiled(t324=number(HUGE), t270=APERIO)), "is truncated", 0,
    ),
    "tile-before": ("i.tif", lambda: tiff(tiled(t324=Tag(9, (-5,)))), "negative places", 0),
    "tiles-missing": ("i.svs", lambda: tiff(tiled((640, 640), t270=APERIO)),
                      "lists 1 tiles and its size needs 100", 0),
    "tiles-uncounted": ("i.tif", lambda: tiff(tiled(t325=number(5, 5))),
                        "1 places of tiles and 2 of their lengths", 0),
    "strips-missing": ("i.tif", lambda: compressed(8, b"0", striped(rows=8)), "lists 1 ", 0),
    "float16-of-nothing": ("i.tif", lambda: tiff(tiled(t258=Tag(3, (16,) * 3))), "i.tif", 0),
    "unknown-format": ("i.tif", lambda: tiff(tiled(t339=Tag(3, (77,) * 3))),
                       "in a format that is not read", 0),
    "complex": (
        "i.tif",
        lambda: tiff(striped(t258=Tag(3, (64,) * 3), t339=Tag(3, (6,) * 3), t279=number(98304)),
                     pixels=bytes(98304)),
        "complex64", 0,
    ),
    "long-integers": (
        "i.tif",
        lambda: tiff(striped(t258=Tag(3, (64,) * 3), t279=number(98304)), pixels=bytes(98304)),
        "uint64", 0,
    ),
    "circle-of-one": ("i.tif", lambda: circle(1, 0), "in a circle", 0),
    "circle": ("i.svs", lambda: circle(300, 150), "in a circle", 0),
    "many-pages": ("i.tif", lambda: many_pages(10**6), "--max-memory", 0),
    "many-copies": ("i.tif", lambda: own_copies(10**5), "--max-memory", 0),
    "many-tags": ("i.tif", many_tags, "65535 tags", 0),
    "long-description": (
        "i.tif", lambda: tiff(tiled(t270=Tag(2, b"OME>", 10**8, 8))), "--max-memory", 2 * 10**8,
    ),
    "long-index": (
        "i.tif", lambda: tiff(tiled(t324=Tag(4, bytes(4), 2**31, 8))), "--max-memory", 2**34,
    ),
    "entities": ("i.tif", lambda: tiff(tiled(t270=bomb())), "entities", 0),
    "entities-xmp": ("i.tif", lambda: tiff(tiled(t700=bomb())), "entities", 0),
    "ome-planes": (
        "i.tif", lambda: ome('<Pixels SizeT="99999" SizeC="9999"/>'), "lists 999890001 planes", 0,
    ),
    "ome-tiffdata": (
        "i.tif", lambda: ome('<Pixels>' + '<TiffData PlaneCount="600000"/>' * 2 + '</Pixels>'),
        "--max-memory", 0,
    ),
    "ome-modulo": ("i.tif", lambda: ome('<ModuloAlongT Start="0" End="1e9" Step="1e-9"/>'),
                   "--max-memory", 0),
    "ome-device": ("i.tif", lambda: ome('<UUID FileName="/dev/stdin">urn:uuid:1</UUID>'),
                   "would lie elsewhere ('/dev/stdin')", 0),
    "ome-parent": ("i.tif", lambda: ome('<UUID FileName="../a/b.tif">urn:uuid:1</UUID>'),
                   "would lie elsewhere", 0),
    "jpeg-bomb": ("i.tif", lambda: compressed(7, jpeg(64, 65500), YCBCR),
                  "holds 65500 x 65500 pixels", 0),
    "jpeg-2000-bomb": ("i.tif", lambda: compressed(34712, jpeg_2000(2**20), tiled()),
                       "holds 1048576 x 1048576 pixels", 0),
    "png": ("i.png", lambda: png(10**5, 10**5), "--max-memory", 0),
    "png-pixels": ("i.png", lambda: png(2**31 - 1, 2**31 - 1), "--max-pixels", 0),
    "jpeg": ("i.jpg", lambda: jpeg(64, 65500), "--max-memory", 0),
    "bmp": ("i.bmp", lambda: bmp(10**5, 10**5), "--max-memory", 0),
    "webp": ("i.webp", lambda: b"RIFF\xff\xff\xff\xffWEBPVP8 ", "--max-memory", 2**40),
    "zip-tif": ("i.tif", zipped, "no image that is read", 0),
    "zip-png": ("i.png", zipped, "no image that is read", 0),
    "zip-slide": ("i.svs", zipped, "no image that is read", 0),
}  # fmt: skip


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What came of each case, all opened by one process."""
    folder = tmp_path_factory.mktemp("hostile")
    paths = {}
    for name, (file, make, _, length) in CASES.items():
        (folder / name).mkdir()
        paths[name] = folder / name / file
        paths[name].write_bytes(make())
        if length:
            os.truncate(paths[name], length)  # which takes no room on the disk
    outcomes = look(list(paths.values()))
    return {name: outcomes[path] for name, path in paths.items()}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "i.png")
    (tmp_path / "a.tif").write_bytes(ome('<UUID FileName="i.png">urn:uuid:1</UUID>'))
    outcomes = look(sorted(tmp_path.iterdir()))
    assert "would lie elsewhere" in outcomes[tmp_path / "a.tif"].said
    assert "neither a file nor a folder" in outcomes[tmp_path / "i.png"].said


def test_a_companion_is_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "b.tif").write_bytes(circle(2, 0))
    (tmp_path / "a.tif").write_bytes(ome('<UUID FileName="b.tif">urn:uuid:1</UUID>'))
    with pytest.raises(DataError, match=r"b\.tif is damaged: its list of pages runs in a circle"):
        open_pyramid(tmp_path / "a.tif")
    (tmp_path / "b.tif").unlink()
    with open_pyramid(tmp_path / "a.tif") as image:
        assert image.width == 64


@pytest.mark.parametrize("name", CASES)
def test_refused_by_name(hostile: dict[str, Outcome], name: str) -> None:
    outcome, says = hostile[name], CASES[name][2]
    assert outcome.kind == "DataError", outcome
    assert says in outcome.said
    assert outcome.name in outcome.said
    assert "\n" not in outcome.said
    assert outcome.seconds < SECONDS


def test_no_memory_is_taken(hostile: dict[str, Outcome]) -> None:
    taken = {name: outcome.megabytes for name, outcome in hostile.items()}
    assert sum(taken.values()) < MEGABYTES, taken


def test_the_builder_builds_what_is_read(tmp_path: Path) -> None:
    """The lies above are no more than that: the honest files are read."""
    two = tiled(t254=number(1), t256=number(32))
    files = {
        "tiled": tiff(tiled()),
        "big": tiff(tiled(), big=True),
        "striped": tiff(striped()),
        "two": tiff(tiled(), two),
        "smaller-copy": smaller_copy(two),
        "copies": own_copies(3),
        "deflate": compressed(8, zlib.compress(bytes(64 * 64 * 3)), tiled()),
        "jpeg": compressed(7, jpeg(), YCBCR),
        "jpeg-2000": compressed(34712, jpeg_2000(64), tiled()),
        "slide": compressed(7, jpeg(), tiled(t262=Tag(3, (6,)), t270=APERIO)),
    }
    for name, data in files.items():
        (tmp_path / f"{name}.tif").write_bytes(data)
    outcomes = look(sorted(tmp_path.iterdir()))
    assert len(outcomes) == len(files)
    assert not [outcome for outcome in outcomes.values() if outcome.kind != "read"]


def test_what_only_looks_large_does_not_grow(tmp_path: Path) -> None:
    """Whether these are read or refused is the libraries' choice; memory and time are ours."""
    files = {
        "deflate-bomb": compressed(8, zlib.compress(bytes(10**8)), tiled()),
        "nested-xml": tiff(tiled(t270=nested(10**5))),
        "bands": tiff(tiled(t277=number(60000))),
    }
    for name, data in files.items():
        (tmp_path / f"{name}.tif").write_bytes(data)
    for outcome in look(sorted(tmp_path.iterdir())).values():
        _check_bounded(outcome)


def _ndpi(path: Path, *widths: int) -> None:
    """Write pages in NDPI's dialect of TIFF, beyond the 4 GiB that others reach."""
    high, low = 1, 16
    with path.open("wb") as file:
        file.write(struct.pack("<2sHII", b"II", 42, low, high))
        for page, width in enumerate(widths, 1):
            # Height, NDPI's mark, and the width with another number: too long for its place.
            tags = ((256, 4, 2, low + 96), (257, 4, 1, 8), (65420, 4, 1, 1))
            file.seek((high << 32) + low)
            file.write(struct.pack("<H", len(tags)))
            file.writelines(struct.pack("<HHII", *tag) for tag in tags)
            following = (0, 0) if page == len(widths) else (low + 128, high)
            file.write(struct.pack("<2I3I", *following, high, 0, 0))
            file.seek((high << 32) + low + 96)
            file.write(struct.pack("<2I", width, 0))
            low += 128


def test_offsets_of_64_bits_in_ndpi(tmp_path: Path) -> None:
    _ndpi(tmp_path / "i.ndpi", 8, 8)
    check_directories(tmp_path / "i.ndpi")
    _ndpi(tmp_path / "i.ndpi", 8, 8, HUGE)
    with pytest.raises(UnsupportedImage, match=r"1000000000 x 8 pixels.*--max-pixels"):
        check_directories(tmp_path / "i.ndpi", Limits(pixels=HUGE))


def _mutated(data: bytes, chance: random.Random) -> bytes:
    """Return a file cut off, or with up to 16 bytes changed, mostly in its directory."""
    if chance.random() < 0.2:
        return data[: chance.randrange(len(data))]
    changed = bytearray(data)
    reach = len(data) if chance.random() < 0.4 else min(len(data), 600)
    for _ in range(chance.choice((1, 2, 4, 16))):
        changed[chance.randrange(reach)] = chance.choice((0, 1, 128, 255, chance.randrange(256)))
    return bytes(changed)


def _check_bounded(outcome: Outcome) -> None:
    assert outcome.kind in ("read", "DataError"), outcome
    assert outcome.kind == "read" or outcome.name in outcome.said
    assert "\n" not in outcome.said
    assert outcome.seconds < SECONDS, outcome
    assert outcome.megabytes < MEGABYTES, outcome


TINY = truth(size=(150, 130))
WRITERS: dict[str, Callable[[Path], object]] = {
    "jpeg.tif": lambda path: tifffile.imwrite(
        path, TINY, tile=(64, 64), compression="jpeg", metadata=None, photometric="rgb"
    ),
    "slide.svs": lambda path: tifffile.imwrite(
        path, TINY, tile=(64, 64), compression="jpeg", metadata=None, photometric="ycbcr",
        description=VENDOR,
    ),
    "deflate.tif": lambda path: tifffile.imwrite(
        path, TINY, tile=(64, 64), compression="zlib", metadata=None, photometric="rgb"
    ),
    "picture.png": lambda path: write_picture(path, TINY),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_changed_bytes_are_read_or_refused(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    data = (tmp_path / name).read_bytes()
    paths = [tmp_path / f"{seed}{Path(name).suffix}" for seed in range(40)]
    paths[0].write_bytes(data)
    for seed, path in enumerate(paths[1:]):
        path.write_bytes(_mutated(data, random.Random(seed)))
    # A changed size may be believable: what it may take is bounded by the limit.
    outcomes = look(paths, memory=2**28)
    for outcome in outcomes.values():
        _check_bounded(outcome)
    assert outcomes[paths[0]].kind == "read"
    assert {outcome.kind for outcome in outcomes.values()} == {"read", "DataError"}
