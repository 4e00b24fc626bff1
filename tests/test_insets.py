"""What lies inside glimpses: maps with known answers, and pictures of them at the right places."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pytest
import torch
from command_line import CommandLine, picture, write_model, write_png
from fakes import Brightness, fake_model, noise
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tnet.adapters.array import open_array
from tnet.adapters.insets import draw_insets, inset_texts
from tnet.adapters.remembering import Remembering
from tnet.adapters.views import View, facts_of
from tnet.attention import grad_cam
from tnet.bundle import save
from tnet.geometry import Region
from tnet.insets import grad_cam_maps, has_soft_attention, soft_maps
from tnet.model import TNet
from tnet.plan import Plan, Step
from tnet.pyramid import How
from tnet.recipes import build
from tnet.record import Walk
from tnet.replaying import Pixels, pixels_of
from tnet.traversal import walk

STEPS = (Step(4, 4, 0.375, 3), Step(3, 3, 0.5, 1))
PLAN = Plan(view=(64, 48), steps=STEPS)


class Gate(nn.Module):
    """Lets everything through; says that it lets through what is bright."""

    def soft_attention(self, x_MCHW: Tensor) -> Tensor:
        return x_MCHW.mean(dim=1)

    def forward(self, x_MCHW: Tensor) -> Tensor:
        return x_MCHW


class Even(Gate):
    """Says that it lets through all alike, on a coarser map."""

    def soft_attention(self, x_MCHW: Tensor) -> Tensor:
        return torch.full((len(x_MCHW), 3, 4), 7.0)


class Gated(Brightness):
    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Sequential(Gate(), Even())

    def forward(self, view_MCHW: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(self.gates(view_MCHW))


def walked(model: TNet, **how: Any) -> tuple[Walk, Pixels]:
    image = open_array(noise(301, 403, bands=model.expects.bands))
    plan = replace(model.plan, **how)
    (record,) = walk(model, [image], plan)
    return record, pixels_of(model, record, image)


def test_modules_have_the_same_say() -> None:
    model = fake_model(PLAN)
    assert not has_soft_attention(model)
    model.backbone = Gated()
    assert has_soft_attention(model)
    record, pixels = walked(model)
    found = soft_maps(model, record, pixels)
    assert list(found) == list(range(len(record.glimpses)))
    for number, view in enumerate([*pixels.first, *pixels.views]):
        grey = view[..., 0].astype(np.float64)
        np.testing.assert_allclose(found[number], (grey / grey.mean() + 1) / 2, rtol=1e-5)


def test_fusion_of_the_glimpses_is_not_inside_them() -> None:
    model = build("default", classes=["a", "b"], backbone="test_resnet", aggregate="aff")
    assert not has_soft_attention(model)


def test_the_whole_image_of_tiles_was_not_looked_at() -> None:
    model = fake_model(PLAN)
    model.backbone = Gated()
    record, pixels = walked(model, steps=(), tiles="native")
    assert list(soft_maps(model, record, pixels)) == list(range(1, len(record.glimpses)))


@pytest.mark.parametrize("aggregate", ["mean", "attention", "aff"])
def test_grad_cam_of_each_glimpse_at_its_place(aggregate: str) -> None:
    torch.manual_seed(0)
    model = build(
        "default",
        classes=["a", "b"],
        backbone="test_resnet",
        aggregate=aggregate,
        scout="test_convnext",
    ).eval()
    model.plan = PLAN
    record, pixels = walked(model)
    found = grad_cam_maps(model, record, pixels, "b")
    assert list(found) == list(range(len(record.glimpses)))
    top = record.glimpses[0].region
    for number, view in enumerate([*pixels.first, *pixels.views]):
        region = record.glimpses[number].region
        place = (
            100 * (region.y + region.height / 2) / top.height,
            100 * (region.x + region.width / 2) / top.width,
            0.5 * float(np.log2(top.area / region.area)),
        )
        view_CHW = torch.from_numpy(view).permute(2, 0, 1)
        cam = grad_cam(model, view_CHW, "b", -1, position=place, first=number == 0)
        wanted = nn.functional.interpolate(cam[None, None], (48, 64), mode="bilinear")[0, 0]
        np.testing.assert_allclose(found[number], wanted, rtol=1e-4, atol=1e-7)


def test_grad_cam_has_a_first_look_of_its_own() -> None:
    torch.manual_seed(0)
    model: Any = build("default", classes=["a"], backbone="test_resnet", scout="test_convnext")
    view = torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8)
    grad_cam(model, view, 0, "stages.3", first=True)
    grad_cam(model, view, 0, "layer4")


@pytest.mark.parametrize(
    ("recipe", "options"), [("official_imagenet", {}), ("official_fmow", {"width": 0.1})]
)
def test_released_models_have_a_last_stage(recipe: str, options: dict[str, Any]) -> None:
    model = build(recipe, classes=["a", "b"], **options)
    view = torch.randint(0, 255, (3, 77, 77), dtype=torch.uint8)
    assert min(grad_cam(model, view, 0, -1).shape) > 1


def brightest(content: bytes) -> tuple[float, float]:
    """Return where the yellow is: x and y of its middle, as shares of the sides."""
    shown = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    yellow = shown[..., 0] + shown[..., 1] - 2 * shown[..., 2]
    rows, columns = np.nonzero(yellow > 0.95 * yellow.max())
    return (columns.mean() + 0.5) / shown.shape[1], (rows.mean() + 0.5) / shown.shape[0]


@pytest.mark.parametrize("size", [(64, 48), (77, 301), (640, 480)])
def test_pictures_are_in_register(size: tuple[int, int]) -> None:
    across, down = size
    values = np.zeros((down, across), np.float32)
    values[down // 4 : down // 4 + 5, across // 2 : across // 2 + 5] = 3.0
    view = np.full((down, across, 3), 128, np.uint8)
    image = open_array(noise(301, 403, bands=3))
    found = draw_insets(image, {4: view, 9: view}, {4: values, 9: values / np.float32(3)}, "a map")
    assert list(found) == [4, 9]
    x, y = brightest(found[4])
    assert abs(x - (across // 2 + 2.5) / across) < 1 / across
    assert abs(y - (down // 4 + 2.5) / down) < 1 / down
    shown = {n: Image.open(io.BytesIO(content)) for n, content in found.items()}
    assert 256 <= max(shown[4].size) <= 512
    middle = round(x * shown[4].width), round(y * shown[4].height)
    for page in shown.values():
        assert page.getpixel((0, 0)) == (128, 128, 128)  # nothing over what has no value
    strong, weak = (shown[n].getpixel(middle) for n in (4, 9))
    assert strong != weak  # one scale for all


def test_what_is_nearly_even_looks_even() -> None:
    values = np.full((48, 64), 1.0, np.float32)
    values[:24] = 1.001
    view = np.full((48, 64, 3), 128, np.uint8)
    image = open_array(noise(301, 403, bands=3))
    (content,) = draw_insets(image, {0: view}, {0: values}, "").values()
    shown = np.asarray(Image.open(io.BytesIO(content))).astype(int)
    assert np.abs(shown - 128).max() <= 4


def test_nothing_to_draw() -> None:
    assert draw_insets(open_array(noise(9, 9)), {}, {}, "nothing") == {}


def test_pixels_of_any_kind_are_shown() -> None:
    deep = noise(64, 64, bands=4).astype(np.uint16) * 100
    image = open_array(deep, nodata=0)
    view = deep.astype(np.float32)
    view[:8] = np.nan
    (content,) = draw_insets(image, {0: view}, {0: np.zeros((64, 64), np.float32)}, "").values()
    shown = np.asarray(Image.open(io.BytesIO(content)))
    assert (shown[0] == 0).all()
    assert shown[100:].std() > 30


def test_what_a_picture_says_of_itself(tmp_path: Path) -> None:
    image = open_array(noise(9, 9, bands=3))
    values = np.array([[0.5, 2.0]], np.float32)
    (content,) = draw_insets(image, {0: noise(1, 2, bands=3)}, {0: values}, "木 <b>").values()
    (tmp_path / "a.png").write_bytes(content)
    said = "木 <b>", "clear is 0.5, yellow is 2, in all glimpses"
    assert inset_texts(tmp_path / "a.png") == said
    for name, other in (("b.png", content[:40]), ("c.png", b"nothing")):
        (tmp_path / name).write_bytes(other)
        assert inset_texts(tmp_path / name) == ("", "")
    write_png(tmp_path / "d.png", picture())
    assert inset_texts(tmp_path / "d.png") == ("", "")


class Counted(View):
    """Counts the regions that are read of an image."""

    count = 0

    def read(self, region: Region, size: tuple[int, int], **how: Unpack[How]) -> NDArray[Any]:
        self.count += 1
        return super().read(region, size, **how)

    def read_many(
        self, regions: Sequence[Region], size: tuple[int, int], **how: Unpack[How]
    ) -> NDArray[Any]:
        self.count += len(regions)
        return super().read_many(regions, size, **how)


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        replace(PLAN, first_view=(96, 96), aspect="keep", background=0.01),
        replace(PLAN, rule="official", resampling="official", outside="zero"),
        replace(PLAN, steps=(), tiles="native"),
    ],
    ids=["default", "keep", "official", "tiles"],
)
def test_what_a_walk_was_given_is_not_read_again(plan: Plan) -> None:
    model, image = fake_model(plan, bands=3), open_array(noise(301, 403, bands=3))
    (record,) = walk(model, [image])
    wanted = pixels_of(model, record, image)
    counted = Counted(image, facts_of(image))
    remembering = Remembering(counted)
    (again,) = walk(model, [remembering])
    before = counted.count
    kept = pixels_of(model, again, remembering)
    assert counted.count == before > 0
    np.testing.assert_array_equal(again.logits, record.logits)
    np.testing.assert_array_equal(kept.first, wanted.first)
    np.testing.assert_array_equal(kept.views, wanted.views)


def test_what_is_remembered_cannot_be_changed() -> None:
    image = Remembering(open_array(noise(64, 64)))
    whole, half = Region(0, 0, 64, 64), Region(0, 0, 32, 32)
    for look in (lambda: image.read(whole, (8, 8)), lambda: image.read_many([half], (8, 8))[0]):
        first: NDArray[Any] = look()
        before = first.copy()
        first[:] = 0
        np.testing.assert_array_equal(look(), before)
    both = image.read_many([half, whole], (8, 8))
    np.testing.assert_array_equal(both[1], image.read(whole, (8, 8)))
    assert image.read(whole, (8, 8), border="zero", fill=[3.0]).shape == (8, 8, 1)
    assert image.read_many([], (8, 8)).shape == (0, 8, 8, 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def fusing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose backbone has soft attention."""
    torch.manual_seed(0)
    made = build("default", classes=["a", "b"], backbone="iaff_resnet32_cifar")
    made.plan = replace(made.plan, view=(32, 32), steps=(Step(4, 4, 0.375, 2),))
    return save(made, tmp_path_factory.mktemp("model") / "soft.safetensors", training={})


Classify = Callable[..., dict[str, bytes]]


@pytest.fixture
def classify(tnet: CommandLine, tmp_path: Path) -> Classify:
    """Classifies an image into a folder; returns what lies in attention/."""
    image = write_png(tmp_path / "one.png", picture())

    def run(model: Path, *flags: object, out: str = "out", code: int = 0) -> dict[str, bytes]:
        done = tnet("classify", image, "--model", model, "--out", tmp_path / out, *flags)
        assert done.code == code, done.err
        folder = tmp_path / out / "attention"
        return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*.png")}

    return run


def test_a_picture_for_every_glimpse(classify: Classify, model: Path, tmp_path: Path) -> None:
    found = classify(model, "--attention", "grad-cam")
    record = Walk.from_json((tmp_path / "out" / "walks" / "one.json").read_text(encoding="utf-8"))
    assert set(found) == {f"one/{number}.png" for number in range(len(record.glimpses))}
    title, _ = inset_texts(tmp_path / "out" / "attention" / "one" / "0.png")
    assert title == f"Grad-CAM for {record.label}"
    assert classify(model, "--attention", "grad-cam", out="again") == found
    other = next(name for name in record.classes if name != record.label)
    assert classify(model, "--attention", f"grad-cam:{other}", out="other") != found
    assert not list(tmp_path.rglob("*.partial"))


def test_the_backbones_own_attention(classify: Classify, fusing: Path, tmp_path: Path) -> None:
    found = classify(fusing, "--attention", "soft", "--pixels")
    assert set(found) == {"one/0.png", "one/1.png", "one/2.png"}
    assert inset_texts(tmp_path / "out" / "attention" / "one" / "2.png")[0] == "soft attention"
    assert classify(fusing, "--attention", "soft", out="again") == found
    assert (tmp_path / "out" / "pixels" / "one.npz").exists()


def test_pictures_of_another_walk_go_away(classify: Classify, model: Path, tmp_path: Path) -> None:
    assert len(classify(model, "--attention", "grad-cam", "--pixels")) == 7
    (tmp_path / "out" / "attention" / "one" / "mine.txt").write_text("not ours")
    assert len(classify(model, "--attention", "grad-cam", "--glimpses", "1,1")) == 3
    assert classify(model, "--no-overlay") == {}
    left = {str(f.relative_to(tmp_path / "out")) for f in (tmp_path / "out").rglob("*.*")}
    assert left == {"predictions.csv", "walks/one.json", "attention/one/mine.txt"}


def test_without_evidence_there_is_no_class_to_explain(
    tnet: CommandLine, model: Path, tmp_path: Path
) -> None:
    image = write_png(tmp_path / "blank.png", np.full((90, 120, 3), 255, np.uint8))
    flags = ("--model", model, "--out", tmp_path / "out", "--json")
    done = tnet("classify", image, *flags, "--attention", "grad-cam")
    assert done.code == 0
    assert "no class was predicted" in done.out
    assert tnet("classify", image, *flags, "--attention", "grad-cam:water").code == 0
    assert (tmp_path / "out" / "attention" / "blank" / "0.png").exists()


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("soft", "has no soft attention of its own to show; take --attention grad-cam"),
        ("grad-cam:fox", "--attention grad-cam: there is no class 'fox'; there are grass"),
        ("grad-cam:", "--attention takes soft, grad-cam or grad-cam:CLASS, got 'grad-cam:'"),
        ("heat", "--attention takes soft, grad-cam or grad-cam:CLASS, got 'heat'"),
    ],
)
def test_what_cannot_be_drawn_is_said_first(
    tnet: CommandLine, model: Path, tmp_path: Path, flag: str, said: str
) -> None:
    image = write_png(tmp_path / "one.png", picture())
    done = tnet("classify", image, "--model", model, "--out", tmp_path / "out", "--attention", flag)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err
    assert not (tmp_path / "out").exists()


def test_pictures_need_a_folder(tnet: CommandLine, model: Path, tmp_path: Path) -> None:
    image = write_png(tmp_path / "one.png", picture())
    done = tnet("classify", image, "--model", model, "--attention", "grad-cam")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "--out" in done.err


def test_pictures_that_fail_are_a_note(
    classify: Classify, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("a tile is damaged")

    monkeypatch.setattr("tnet.adapters.insets.draw_insets", broken)
    assert classify(model, "--attention", "grad-cam") == {}
    text = (tmp_path / "out" / "predictions.csv").read_text(encoding="utf-8")
    assert "its attention could not be drawn: a tile is damaged" in text
