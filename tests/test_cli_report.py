"""`tnet report` as a user runs it: what the pages hold, how large they are, what is refused."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import CommandLine, picture, write_model, write_png
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from viewer_server import EVIL, walk_of, write_walk

from tnet.bundle import load, save
from tnet.geometry import Region
from tnet.record import NO_EVIDENCE, Walk
from tnet.replaying import Pixels
from tnet.scripts.report_index import Row, index_page, thumbnail
from tnet.scripts.viewer.cohort import Entry

REGIONS = (Region(450, 175, 76, 76), Region(50, 375, 76, 76), Region(625, 25, 6, 6))
SIZE = (751, 501)


class Page(HTMLParser):
    """What a page shows and asks for; void elements aside every element must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.said.append(data)

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.said).split())

    @property
    def sections(self) -> list[str]:
        return re.findall(r"<h2>(.*?)</h2>", self.text)


def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def pictures(shown: Page) -> list[Image.Image]:
    """Every picture of a page, decoded."""
    found = []
    sources = [a["src"] for a in shown.all("img")] + [a["href"] for a in shown.all("image")]
    for source in sources:
        kind, data = str(source).split(";base64,")
        assert kind in ("data:image/jpeg", "data:image/png")
        with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
            opened.load()
            found.append(opened.copy())
    return found


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A folder with one walk over an image that is there, with a name that is markup."""
    image = write_png(tmp_path / f"{EVIL}.png", picture(*SIZE))
    write_walk(tmp_path, "a", walk_of(str(image), SIZE, *REGIONS))
    return tmp_path


def test_one_walk_is_one_file_that_stands_alone(tnet: CommandLine, one: Path) -> None:
    done = tnet("report", one)
    assert (done.code, done.out) == (0, f"{one / 'report.html'}\n")
    assert sorted(path.name for path in one.iterdir() if path.is_file()) == [
        f"{EVIL}.png", "report.html",
    ]  # fmt: skip
    shown = page(one / "report.html")
    (policy,) = [m["content"] for m in shown.all("meta") if "http-equiv" in m]
    assert str(policy).startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert shown.all("script", "link", "iframe", "object", "base", "form") == []
    assert all("style" not in a and "onerror" not in a for _, a in shown.tags)
    assert all(str(a.get("href", "#")).startswith(("#", "data:")) for _, a in shown.tags)
    assert EVIL in shown.words
    assert "<img src=x" not in shown.text
    assert shown.sections == [
        "What speaks for calm",
        "Does the answer hang on these glimpses?",
        "Every glimpse",
        "How this was made",
    ]


def test_every_glimpse_has_its_picture_and_numbers(tnet: CommandLine, one: Path) -> None:
    assert tnet("report", one, "-o", one / "x" / "y.html").code == 0
    shown = page(one / "x" / "y.html")
    cards = [a["id"] for a in shown.all("article")]
    assert sorted(map(str, cards)) == [f"glimpse-{i}" for i in range(4)]
    targets = {str(a["href"]) for a in shown.all("a")}
    assert targets == {"#glimpse-1", "#glimpse-2", "#glimpse-3"}
    for text in (
        "contribution +0.250", "weight 25 %", "x 450, y 175 px", "76 \u00d7 76 px",
        "38 \u00d7 38 µm", "level 1, inside the first look", "of its path 25 %",
        "73.1 %", "4 views that went", "not calibrated", "0.5 s reading",
        "x 625, y 25 px", "0.594 µm/px (level 0: 0.5)",
    ):  # fmt: skip
        assert text in shown.words
    found = pictures(shown)
    # A view of 64 x 48 is shown in the shape of its region, and loses no pixel.
    assert [p.size for p in found].count((64, 64)) >= 3
    square = page_image(found, (64, 64))
    assert np.asarray(square).std() > 0


def page_image(found: list[Image.Image], size: tuple[int, int]) -> Image.Image:
    return next(one for one in found if one.size == size)


def test_the_heat_map_says_nothing_of_what_was_never_seen(tnet: CommandLine, one: Path) -> None:
    assert tnet("report", one).code == 0
    (heat,) = [p for p in pictures(page(one / "report.html")) if p.mode in ("RGBA", "P")]
    alpha = np.asarray(heat.convert("RGBA"))[..., 3]
    across, down = heat.width / SIZE[0], heat.height / SIZE[1]
    seen = np.zeros(alpha.shape, dtype=bool)
    for region in REGIONS:
        rows = slice(int(region.y * down), int(np.ceil(region.bottom * down)))
        seen[rows, int(region.x * across) : int(np.ceil(region.right * across))] = True
    assert (alpha[~seen] == 0).all()
    assert (alpha > 0).sum() > 0.8 * seen.sum()


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results with pixels, as `tnet classify --pixels` writes it; the image is gone."""
    from tnet.scripts import main as door

    folder = tmp_path_factory.mktemp("classified")
    model = load(write_model(folder / "small.safetensors"))
    model.calibration = 2.5
    save(model, folder / "small.safetensors")
    images = [write_png(folder / f"{i}.png", picture(700, 500, seed=i)) for i in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["--model", folder / "small.safetensors", "--out", folder / "out", "--pixels"]
        patch.setattr("sys.argv", ["tnet", "classify", *map(str, [*images, *arguments])])
        assert door.run() == 0
    for image in images:
        image.unlink()
    return folder


def test_without_its_image_a_report_shows_the_pixels_that_were_kept(
    tnet: CommandLine, classified: Path, tmp_path: Path
) -> None:
    file = classified / "out" / "walks" / "0.json"
    done = tnet(
        "report", file, "-o", tmp_path / "r.html", "--model", classified / "small.safetensors"
    )
    assert done.code == 0, done.err
    shown = page(tmp_path / "r.html")
    walk = Walk.from_json(file.read_text(encoding="utf-8"))
    assert "The image is shown as the first look saw it" in shown.words
    assert "from the pixels that were kept" in shown.words
    assert "the answer is the same (largest difference" in shown.words
    assert "Taken away in the order below" in shown.words
    assert "the temperature 2.5 was fitted" in shown.words
    assert f"{walk.confidence:.1%}".replace("%", " %") in shown.words
    for text in (walk.made["model_sha256"], f"torch {walk.made['torch']}", "small", '"view"'):
        assert text in shown.words
    found = pictures(shown)
    kept = Pixels.from_bytes((classified / "out" / "pixels" / "0.npz").read_bytes())
    crops = [p for p in found if p.mode == "RGB" and min(p.size) == 64]
    assert len(crops) >= len(walk.glimpses)
    views = [*kept.first, *kept.views]
    means = sorted(float(view.mean()) for view in views)
    drawn = sorted(float(np.asarray(crop).mean()) for crop in crops[-len(views) :])
    np.testing.assert_allclose(drawn, means, atol=3)


def test_pixels_of_another_model_are_not_taken_for_proof(
    tnet: CommandLine, classified: Path, tmp_path: Path
) -> None:
    file, out = classified / "out" / "walks" / "0.json", tmp_path / "r.html"
    assert tnet("report", file, "-o", out).code == 0
    assert "the model small is not here; name it with --model" in page(out).words
    model = load(classified / "small.safetensors")
    model.calibration = 1.0
    other = save(model, tmp_path / "other.safetensors")
    assert tnet("report", file, "-o", out, "--model", other).code == 0
    assert "is another one than walked here" in page(out).words
    # A record from before the hash; its weights were changed.
    record = json.loads(file.read_text(encoding="utf-8"))
    record["made"] = {}
    moved = classified / "out" / "walks" / "1.json"
    before = moved.read_text(encoding="utf-8")
    moved.write_text(json.dumps(record))
    try:
        assert tnet("report", moved, "-o", out, "--model", other).code == 0
        assert "The model or the pixels are not those of this walk" in page(out).words
    finally:
        moved.write_text(before, encoding="utf-8")


def test_without_image_and_pixels_the_numbers_remain(tnet: CommandLine, tmp_path: Path) -> None:
    write_walk(tmp_path, "a", walk_of("gone/away.png", SIZE, *REGIONS))
    assert tnet("report", tmp_path).code == 0
    shown = page(tmp_path / "report.html")
    assert "gone/away.png was not found" in shown.words
    assert shown.words.count("no picture") == 4
    assert "contribution +0.250" in shown.words


def test_attention_that_was_written_beside_the_walk_is_shown(tnet: CommandLine, one: Path) -> None:
    folder = one / "attention" / "a"
    folder.mkdir(parents=True)
    texts = PngInfo()
    texts.add_itxt("Title", f"Grad-CAM for {EVIL}")
    texts.add_itxt("Description", "yellow is 2")
    Image.new("RGB", (224, 224), (0, 200, 0)).save(folder / "2.png", pnginfo=texts)
    (folder / "1.png").write_bytes(b"no picture")
    assert tnet("report", one).code == 0
    shown = page(one / "report.html")
    (inset,) = [a for a in shown.all("img") if a.get("class") == "inset"]
    assert inset["alt"] == "inside Glimpse 2"
    green = [p for p in pictures(shown) if p.size == (160, 160)]
    assert np.abs(np.subtract(np.asarray(green[0])[80, 80], (0, 200, 0))).max() < 8
    assert f"inside each (Grad-CAM for {EVIL}: yellow is 2)." in shown.words


def test_forty_glimpses_of_noise_take_less_than_two_megabytes(
    tnet: CommandLine, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    image = write_png(tmp_path / "noise.png", rng.integers(0, 256, (800, 800, 3), dtype=np.uint8))
    regions = [Region(14.0 * i, 12.0 * i, 224, 224) for i in range(40)]
    walk = replace(walk_of(str(image), (800, 800), *regions), view=(224, 224))
    write_walk(tmp_path, "a", walk)
    folder = tmp_path / "attention" / "a"
    folder.mkdir(parents=True)
    for i in range(41):
        noise = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    assert tnet("report", tmp_path).code == 0
    assert (tmp_path / "report.html").stat().st_size < 2_000_000
    shown = page(tmp_path / "report.html")
    assert len([a for a in shown.all("img") if a.get("class") == "inset"]) == 41


def test_many_walks_have_an_index_the_least_certain_first(
    tnet: CommandLine, tmp_path: Path
) -> None:
    images = [write_png(tmp_path / name, picture(*SIZE)) for name in ("b#1.png", f"{EVIL}.png")]
    for name, image, logit in zip(("b#1", "a"), images, (3.0, 0.2), strict=True):
        write_walk(tmp_path, name, walk_of(str(image), SIZE, *REGIONS, logit=logit))
    done = tnet("report", tmp_path, "--json")
    assert done.code == 0
    written = [Path(path) for path in json.loads(done.out)["written"]]
    assert written == [tmp_path / "report.html"] + [
        tmp_path / "report" / f"{name}.html" for name in ("a", "b#1")
    ]
    index = page(tmp_path / "report.html")
    links = [str(a["href"]) for a in index.all("a")]
    assert links == ["report/a.html", "report/b%231.html"]
    assert "55.0 %" in index.words
    assert EVIL in index.words
    assert [p.size for p in pictures(index)] == [(112, 75)] * 2
    assert (tmp_path / "report.html").stat().st_size < 30_000
    back = page(tmp_path / "report" / "a.html").all("a")[0]
    assert back["href"] == "../report.html"


def test_an_index_of_very_many_stays_light() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    small = thumbnail(Image.fromarray(noise))
    rows = [
        Row(Entry(f"{i}", f"{i}.svs", None, None, label="x", confidence=i / 600, certainty=i / 600),
            Path("report") / f"{i}.html", small)
        for i in range(600)
    ]  # fmt: skip
    shown = Page(index_page(rows, [], made_by="tnet report"))
    assert len(shown.all("img")) == 500
    assert len(shown.all("a")) == 600
    assert len(shown.text) < 5_000_000
    assert shown.words.index("0.svs") < shown.words.index("599.svs")


def test_a_walk_that_cannot_be_read_stops_no_other(tnet: CommandLine, one: Path) -> None:
    (one / "walks" / "bad.json").write_text("{}")
    done = tnet("report", one)
    assert done.code == 4
    assert "bad.json: this is not a walk" in done.err
    assert "1 walk could not be read" in page(one / "report.html").words
    (one / "walks" / "a.json").unlink()
    done = tnet("report", one)
    assert (done.code, done.err.count("\n")) == (3, 2)


def test_the_same_walk_gives_the_same_bytes(tnet: CommandLine, one: Path) -> None:
    first = [tnet("report", one), (one / "report.html").read_bytes()][1]
    assert tnet("report", one).code == 0  # over its own
    assert (one / "report.html").read_bytes() == first


@pytest.mark.parametrize("place", ["report.html", "report/a.html"])
def test_only_reports_are_replaced(tnet: CommandLine, one: Path, place: str) -> None:
    if "/" in place:
        write_walk(one, "b", walk_of("b.png", SIZE, *REGIONS))
    (one / place).parent.mkdir(exist_ok=True)
    (one / place).write_text("<p>what tnet evaluate wrote</p>")
    done = tnet("report", one)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"{one / place} is there and was not written by tnet report" in done.err
    assert (one / place).read_text() == "<p>what tnet evaluate wrote</p>"
    assert len(list(one.glob("**/*.html"))) == 1


def test_no_evidence_is_said_plainly(tnet: CommandLine, tmp_path: Path) -> None:
    walk = walk_of("a.png", SIZE)
    nothing = np.full(2, np.nan)
    walk = replace(walk, logits=nothing, probabilities=nothing, outcome=NO_EVIDENCE)
    write_walk(tmp_path, "a", walk)
    assert tnet("report", tmp_path).code == 0
    shown = page(tmp_path / "report.html")
    assert "nothing but background" in shown.words
    assert "What happens without glimpses is not known: the model gave no answer" in shown.words
    assert "nan" not in shown.words


def test_several_labels_and_many_classes(tnet: CommandLine, tmp_path: Path) -> None:
    walk = walk_of("a.png", SIZE, *REGIONS)
    names = tuple(f"label {i}" for i in range(30))
    logits = np.linspace(2, -3, 30)
    glimpses = tuple(replace(g, contributions=tuple(logits / 4)) for g in walk.glimpses)
    several = replace(
        walk,
        classes=names,
        logits=logits,
        probabilities=1 / (1 + np.exp(-logits)),
        bias=(0.0,) * 30,
        glimpses=glimpses,
        multilabel=True,
    )
    write_walk(tmp_path, "a", several)
    assert tnet("report", tmp_path).code == 0
    words = page(tmp_path / "report.html").words
    assert "label 0, label 1, label 2, label 3, label 4" in words
    assert "The others: label 12 " in words
    assert "label 29 4.7 %" in words


BAD: dict[str, tuple[list[str], str]] = {
    "missing": (["nothing"], "nothing does not exist"),
    "empty": (["empty"], "holds no walks"),
    "no page": (["good", "-o", "report.pdf"], "ends in .html"),
    "a picture": (["x.png"], "x.png is no walk"),
    "no model": (["good", "--model", "nobody"], "there is no such model file"),
    "a folder": (["good", "-o", "taken.html"], "taken.html cannot be replaced"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(
    tnet: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_walk(tmp_path / "good", "a", walk_of("a.png", SIZE))
    for folder in ("empty", "taken.html"):
        (tmp_path / folder).mkdir()
    write_png(tmp_path / "x.png", picture())
    arguments, said = BAD[name]
    done: Any = tnet("report", *arguments)
    assert done.code == (3 if name == "no model" else 2)
    assert said in done.err
    assert done.err.count("\n") == 1
    assert list(tmp_path.glob("**/report*")) == []
