"""What the viewer's server answers: the right pixels to its own page, and nothing to others."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import write_png, write_zarr
from numpy.typing import NDArray
from PIL import Image
from viewer_server import EVIL, TOKEN, Answer, Running, running, walk_of, write_walk

from tnet.adapters import open_pyramid
from tnet.adapters.drawing import Stretch
from tnet.geometry import Region
from tnet.scripts.viewer.assets import Asset

WIDTH, HEIGHT = 1301, 777
SQUARE = Region(800, 400, 64, 48)


def coloured() -> NDArray[np.uint8]:
    """Noise with a square of one colour."""
    pixels = np.random.default_rng(3).integers(0, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[400:448, 800:864] = (250, 20, 240)
    return pixels


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Four entries: a walk over RGB, an image of 16 bits alone, one without image, one misfit."""
    folder = tmp_path_factory.mktemp("viewer")
    image = write_png(folder / f"{EVIL}.png", coloured())
    deep = np.random.default_rng(4).integers(0, 9000, (300, 500, 4), dtype=np.uint16)
    write_zarr(folder / "deep.zarr", deep)
    beyond = Region(1200, 700, 400, 300)
    write_walk(folder, "a", walk_of(str(image), (WIDTH, HEIGHT), SQUARE, beyond))
    write_walk(folder, "gone", walk_of("no/such.png", (900, 600), Region(1, 2, 30, 30), logit=0.1))
    write_walk(folder, "misfit", walk_of(str(image), (900, 600), logit=3))
    inset = folder / "attention" / "a" / "1.png"
    inset.parent.mkdir(parents=True)
    write_png(inset, np.full((4, 4, 3), 7, np.uint8))
    page = Asset(b"<p>the page</p>", "text/html")
    with running(folder, folder / "deep.zarr", assets={"viewer.html": page}) as server:
        yield server


@pytest.fixture
def ids(viewer: Running) -> dict[str, str]:
    named = {"deep": "deep.zarr", "gone": "such.png"}
    found = {name: e.id for e in viewer.entries for name, t in named.items() if e.title == t}
    walks = {e.walk.stem: e.id for e in viewer.entries if e.walk is not None}
    return walks | found


def pixels(answer: Answer) -> NDArray[Any]:
    assert answer.status == 200, answer.body
    picture = Image.open(io.BytesIO(answer.body))
    return np.asarray(picture.convert("RGBA") if picture.mode == "P" else picture)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_link_becomes_a_cookie(viewer: Running, host: str) -> None:
    host = f"{host}:{viewer.port}"
    answer = viewer.ask(f"/view/x?token={TOKEN}&sort=name", cookie="", host=host)
    assert (answer.status, answer.headers["location"]) == (303, "/view/x")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert viewer.ask("/", cookie=cookie.partition(";")[0], host=host).status == 200


def test_the_link_leads_nowhere_else(viewer: Running) -> None:
    for path in ("//evil.example/", "/%2fevil.example/", "/%0d%0aset-cookie:x/"):
        place = viewer.ask(f"{path}?token={TOKEN}", cookie="").headers["location"]
        assert place[0] == "/"
        assert place[1] not in "/\\"
        assert "\n" not in place


def refused(viewer: Running, status: int, path: str, method: str = "GET", **headers: str) -> None:
    answer = viewer.ask(path, method, **headers)
    assert answer.status == status, answer.body
    assert "script-src 'self';" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/data/{a}.json", "/tile/{a}/0/0_0.jpg", "/static/x.js"])
def test_without_the_key_nothing_is_shown(viewer: Running, ids: dict[str, str], path: str) -> None:
    path = path.format(**ids)
    refused(viewer, 401, path, cookie="")
    refused(viewer, 401, path, cookie=f"tnet-view-{viewer.port}=guess")
    refused(viewer, 401, f"{path}?token=guess", cookie="")
    refused(viewer, 401, f"{path}?token=%ff%fe", cookie="")
    refused(viewer, 401, path, cookie=f"tnet-view={TOKEN}")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.x:{port}"],
)
def test_another_name_for_this_machine_is_refused(viewer: Running, host: str) -> None:
    refused(viewer, 400, "/", host=host.format(port=viewer.port))
    refused(viewer, 400, f"/?token={TOKEN}", host=host.format(port=viewer.port))


def test_a_request_without_host_is_refused(viewer: Running) -> None:
    assert viewer.ask("/", host="").status == 400


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_other_pages_may_not_ask(viewer: Running, site: str) -> None:
    refused(viewer, 403, "/", sec_fetch_site=site)
    refused(viewer, 403, f"/?token={TOKEN}", sec_fetch_site=site)
    assert viewer.ask("/", sec_fetch_site="same-origin").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(viewer: Running, method: str) -> None:
    refused(viewer, 405, "/", method)


def test_head_is_answered(viewer: Running) -> None:
    answer = viewer.ask("/", "HEAD")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    "dots", ["../", "%2e%2e%2f", "%252e%252e%252f", "..%5c", "%c0%ae%c0%ae/", "..%00/", "....//"]
)
@pytest.mark.parametrize("start", ["/static/", "/view/", "/data/", "/thumb/", "/tile/", "/crop/"])
def test_no_path_leads_out(viewer: Running, start: str, dots: str) -> None:
    for name in ("etc/passwd", "etc/passwd.json", "etc/passwd.jpg", "etc/0/0_0.jpg"):
        refused(viewer, 404, f"{start}{dots * 6}{name}")


@pytest.mark.parametrize(
    ("status", "path"),
    [
        (400, "/crop/{a}/1.png?side=1000000"),
        (400, "/crop/{a}/1.png?side=1025"),
        (400, "/crop/{a}/1.png?side=0"),
        (400, "/crop/{a}/1.png?side=-5"),
        (400, "/crop/{a}/1.png?side=9e9"),
        (404, "/crop/{a}/3.png"),
        (404, "/crop/{a}/99999999999999999999.png"),
        (404, "/crop/{deep}/0.png"),
        (404, "/crop/{gone}/0.png"),
        (404, "/inset/{a}/0.png"),
        (404, "/inset/{a}/3.png"),
        (404, "/tile/{a}/0/1_0.jpg"),
        (404, "/tile/{a}/9/0_0.jpg"),
        (404, "/tile/{a}/0/-1_0.jpg"),
        (404, "/tile/{a}/2/99999999999999999999_0.jpg"),
        (404, "/tile/{a}/0/0_0.exe"),
        (404, "/tile/{misfit}/0/0_0.jpg"),
        (404, "/thumb/{gone}.jpg"),
        (404, "/heat/{deep}.png"),
        (404, "/heat/{deep}.json"),
        (404, "/heat/{a}.json?kind=contribution&target=2"),
        (400, "/heat/{a}.json?kind=nonsense"),
        (404, "/heat/{a}.png?kind=contribution&target=2"),
        (400, "/heat/{a}.png?kind=nonsense"),
        (400, "/heat/{a}.png?kind=contribution&target=-1"),
        (400, "/?sort=nonsense"),
        (400, "/?page=0"),
        (404, "/nothing"),
    ],
)
def test_what_is_not_there(viewer: Running, ids: dict[str, str], status: int, path: str) -> None:
    refused(viewer, status, path.format(**ids))


def test_too_much_at_once_is_turned_away(
    viewer: Running, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tnet.scripts.viewer.server.WAITING", 0)
    refused(viewer, 503, f"/tile/{ids['a']}/0/0_0.jpg")
    assert viewer.ask("/").status == 200


def test_a_name_is_never_markup(viewer: Running, ids: dict[str, str]) -> None:
    page = viewer.ask("/").body.decode()
    assert EVIL not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in page
    answer = viewer.ask(f"/data/{ids['a']}.json")
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body)["title"] == f"{EVIL}.png"
    assert EVIL not in viewer.ask(f"/crop/{ids['misfit']}/0.png").body.decode()


def test_answers_say_little_of_the_server(viewer: Running) -> None:
    answer = viewer.ask("/")
    assert "server" not in answer.headers
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("level", [0, 1, 2])
def test_tiles_are_what_the_pyramid_reads(viewer: Running, ids: dict[str, str], level: int) -> None:
    scale = 2 ** (2 - level)
    across, down = -(-WIDTH // scale), -(-HEIGHT // scale)
    with open_pyramid(coloured()) as pyramid:
        for row in range(-(-down // 512)):
            for column in range(-(-across // 512)):
                width, height = min(512, across - column * 512), min(512, down - row * 512)
                corner = column * 512 * scale, row * 512 * scale
                region = Region(*corner, width * scale, height * scale)
                shown = pixels(viewer.ask(f"/tile/{ids['a']}/{level}/{column}_{row}.png"))
                np.testing.assert_array_equal(shown, pyramid.read(region, (width, height)))


def test_tiles_as_jpeg_are_close(viewer: Running, ids: dict[str, str]) -> None:
    exact, close = (
        pixels(viewer.ask(f"/tile/{ids['a']}/0/0_0.{kind}")).astype(float)
        for kind in ("png", "jpg")
    )
    assert exact.shape == close.shape
    assert np.abs(exact - close).mean() < 8  # noise is the worst that a JPEG can meet


def test_other_values_are_stretched_alike_everywhere(
    viewer: Running, ids: dict[str, str], tmp_path: Path
) -> None:
    path = next(entry.image for entry in viewer.entries if entry.title == "deep.zarr")
    assert path is not None
    with open_pyramid(path) as pyramid:
        whole = pyramid.read(Region(0, 0, 500, 300), (500, 300))
    shown = pixels(viewer.ask(f"/tile/{ids['deep']}/0/0_0.png"))
    np.testing.assert_array_equal(shown, np.asarray(Stretch(whole, None)(whole)))


def test_a_crop_is_the_glimpse(viewer: Running, ids: dict[str, str]) -> None:
    crop = pixels(viewer.ask(f"/crop/{ids['a']}/1.png"))
    assert crop.shape == (48, 64, 3)  # as the network saw it
    assert (crop == (250, 20, 240)).all()
    assert pixels(viewer.ask(f"/crop/{ids['a']}/1.png?side=32")).shape == (24, 32, 3)
    assert pixels(viewer.ask(f"/crop/{ids['a']}/2.png")).shape == (48, 64, 3)  # over the border


def test_an_inset_is_shown_where_one_was_written(viewer: Running, ids: dict[str, str]) -> None:
    facts = json.loads(viewer.ask(f"/data/{ids['a']}.json").body)
    assert [glimpse["inset"] for glimpse in facts["walk"]["glimpses"]] == [False, True, False]
    assert facts["walk"]["insets"] == {"title": "attention", "colours": ""}
    assert (pixels(viewer.ask(f"/inset/{ids['a']}/1.png")) == 7).all()


def test_numbers_are_the_walks(viewer: Running, ids: dict[str, str]) -> None:
    facts = json.loads(viewer.ask(f"/data/{ids['a']}.json").body)
    assert (facts["width"], facts["height"], facts["problem"]) == (WIDTH, HEIGHT, None)
    assert facts["metres"] == [0.5e-6, 0.5e-6]
    walk = facts["walk"]
    assert walk["label"] == "calm"
    assert walk["glimpses"][1]["region"] == [800, 400, 64, 48]
    assert walk["glimpses"][1]["parent"] == 0
    sums = np.sum([glimpse["contributions"] for glimpse in walk["glimpses"]], axis=0)
    np.testing.assert_allclose(sums + walk["bias"], walk["logits"], atol=1e-9)


def test_without_its_image_the_walk_is_shown_all_the_same(
    viewer: Running, ids: dict[str, str]
) -> None:
    facts = json.loads(viewer.ask(f"/data/{ids['gone']}.json").body)
    assert "was not found" in facts["problem"]
    assert (facts["width"], len(facts["walk"]["glimpses"])) == (900, 2)
    assert viewer.ask(f"/heat/{ids['gone']}.png").status == 200
    misfit = json.loads(viewer.ask(f"/data/{ids['misfit']}.json").body)
    assert "1301 x 777" in misfit["problem"]


def test_an_image_alone_has_no_walk(viewer: Running, ids: dict[str, str]) -> None:
    facts = json.loads(viewer.ask(f"/data/{ids['deep']}.json").body)
    assert (facts["walk"], facts["width"], facts["height"]) == (None, 500, 300)


def test_the_heat_map_lies_where_the_glimpses_are(viewer: Running, ids: dict[str, str]) -> None:
    for kind in ("weight", "contribution"):
        shown = pixels(viewer.ask(f"/heat/{ids['a']}.png?kind={kind}&target=0"))
        assert shown.shape == (612, 1024, 4)
        rows, columns = np.nonzero(shown[:500, :900, 3])
        found = np.array([columns.min(), columns.max() + 1, rows.min(), rows.max() + 1])
        np.testing.assert_allclose(found * WIDTH / 1024, [800, 864, 400, 448], atol=WIDTH / 1024)


def test_the_legend_has_the_values_of_the_map(viewer: Running, ids: dict[str, str]) -> None:
    said = json.loads(viewer.ask(f"/heat/{ids['a']}.json?kind=weight").body)
    assert (said["ends"], said["steps"]) == (["0", "0.333"], "square-root scale")
    said = json.loads(viewer.ask(f"/heat/{ids['a']}.json?kind=contribution&target=1").body)
    assert said["title"] == f"contribution to the logit of {EVIL}"


def test_the_list_begins_with_what_is_least_certain(viewer: Running, ids: dict[str, str]) -> None:
    page = viewer.ask("/").body.decode()
    order = [page.index(f"/view/{ids[name]}") for name in ("gone", "a", "misfit", "deep")]
    assert order == sorted(order)
    by_name = viewer.ask("/?sort=name").body.decode()
    assert by_name.index(f"/view/{ids['a']}") < by_name.index(f"/view/{ids['deep']}")
    thumbnail = pixels(viewer.ask(f"/thumb/{ids['a']}.jpg"))
    assert thumbnail.shape == (287, 480, 3)
