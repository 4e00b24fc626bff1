"""``tnet view``: what it prints, what it refuses, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from command_line import CommandLine, picture, write_png
from viewer_server import walk_of, write_walk

from tnet.scripts import view as command
from tnet.scripts.viewer import assets


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_png(tmp_path / "one.png", picture())


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for what npm brings."""
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / assets.LIBRARY).write_text("// OpenSeadragon")
    monkeypatch.setattr(assets, "VENDOR", tmp_path / "vendor")


class Interrupted:
    """A server that the user ends at once."""

    def run(self, sockets: list[socket.socket]) -> None:
        assert sockets[0].getsockname()[0] == "127.0.0.1"
        raise KeyboardInterrupt


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the viewer end at once; return the links that a browser was given."""
    opened: list[str] = []
    monkeypatch.setattr(command, "server_of", lambda app: Interrupted())
    monkeypatch.setattr(command, "open_browser", opened.append)
    return opened


@pytest.mark.usefixtures("library")
def test_the_first_line_is_the_link(tnet: CommandLine, image: Path, at_once: list[str]) -> None:
    done = tnet("view", image)
    assert done.code == 0
    (link,) = done.out.splitlines()
    assert link.startswith("http://127.0.0.1:")
    assert "?token=" in link
    assert at_once == [link]
    assert done.err.splitlines()[-1] == "tnet: the viewer has ended"
    assert tnet("view", image, "--no-browser").out != done.out  # another key every time
    assert len(at_once) == 1


@pytest.mark.usefixtures("library", "at_once")
def test_the_link_as_json(tnet: CommandLine, image: Path, tmp_path: Path) -> None:
    write_walk(tmp_path, "a", walk_of("one.png", (120, 90)))
    write_walk(tmp_path, "b", walk_of("gone.png", (120, 90)))
    (tmp_path / "walks" / "c.json").write_text("no walk")
    done = tnet("view", tmp_path, "--json")
    facts = json.loads(done.out)
    assert (done.code, facts["images"], facts["failed"]) == (0, 2, 1)
    assert facts["url"].startswith(f"http://127.0.0.1:{facts['port']}/?token=")
    assert "gone.png was not found" in done.err
    assert "--images" in done.err
    assert "c.json" in done.err
    moved = tnet("view", tmp_path / "walks" / "b.json", "--images", tmp_path, "--json")
    assert "gone.png was not found" in moved.err
    image.rename(tmp_path / "gone.png")
    assert "not found" not in tnet("view", tmp_path / "walks" / "b.json", "--json").err


@pytest.mark.usefixtures("at_once")
def test_without_the_library_it_says_how_to_get_it(
    tnet: CommandLine, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "VENDOR", tmp_path / "none")
    done = tnet("view", image)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert "scripts/assets.sh" in done.err


@pytest.mark.usefixtures("library", "at_once")
def test_nothing_to_show(tnet: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("no walk")
    done = tnet("view", tmp_path)
    assert (done.code, done.out) == (3, "")
    assert "none of the walks" in done.err
    (tmp_path / "empty").mkdir()
    assert tnet("view", tmp_path / "empty").code == 2
    assert tnet("view", tmp_path / "none.svs").code == 3
    assert tnet("view").code == 2


@pytest.mark.usefixtures("library", "at_once")
def test_a_port_that_is_taken(tnet: CommandLine, image: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = tnet("view", image, "--port", port)
    assert (done.code, done.out) == (2, "")
    assert f"port {port} cannot be used" in done.err


def test_two_viewers_get_two_ports() -> None:
    with command.listening(None) as one, command.listening(None) as two:
        assert one.getsockname()[1] != two.getsockname()[1]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_it(image: Path) -> None:
    if not (assets.VENDOR / assets.LIBRARY).is_file():
        pytest.skip("NOT TESTED: OpenSeadragon is missing; run bash scripts/assets.sh")
    line = [sys.executable, "-P", "-m", "tnet.scripts.main", "view", "--no-browser", str(image)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        link = run.stdout.readline().strip()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(link, timeout=20) as page:
            assert b"viewer.js" in page.read()
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=20)
    assert run.returncode == 0
    assert said.splitlines()[-1] == "tnet: the viewer has ended"
    assert "Traceback" not in said
