"""What the viewer finds to show, and the image a walk was made over."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import picture, write_png, write_zarr
from viewer_server import walk_of, write_walk

from tnet.errors import UsageError
from tnet.record import NO_EVIDENCE
from tnet.scripts.viewer.cohort import certainty, find_entries
from tnet.scripts.viewer.tiling import Tiling
from tnet.scripts.walks import image_file


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder as `tnet classify --out` leaves it, and the image beside it."""
    write_png(tmp_path / "a.png", picture())
    write_walk(tmp_path / "out", "a", walk_of("a.png", (120, 90)))
    return tmp_path / "out"


def test_results_walks_and_images(results: Path) -> None:
    for argument in (results, results / "walks", results / "walks" / "a.json"):
        (entry,), failures = find_entries([str(argument)])
        assert failures == []
        assert (entry.title, entry.label) == ("a.png", "calm")
        assert entry.image is not None
        assert entry.image.samefile(results.parent / "a.png")
    write_zarr(results.parent / "b.zarr", picture())
    alone, _ = find_entries([str(results.parent)])
    assert [(entry.title, entry.walk) for entry in alone] == [("a.png", None), ("b.zarr", None)]


def test_the_same_thing_is_shown_once_and_keeps_its_name(results: Path) -> None:
    twice, _ = find_entries([str(results), str(results / "walks")])
    again, _ = find_entries([str(results)])
    assert [entry.id for entry in twice] == [entry.id for entry in again]


def test_one_damaged_walk_does_not_hide_the_others(results: Path) -> None:
    bad = results / "walks" / "b.json"
    bad.write_text("{}")
    entries, failures = find_entries([str(results)])
    assert [entry.title for entry in entries] == ["a.png"]
    assert len(failures) == 1
    assert str(bad) in failures[0]


@pytest.mark.parametrize("argument", ["nothing*", "https://host.example/a.zarr"])
def test_what_cannot_be_shown(argument: str) -> None:
    with pytest.raises(UsageError):
        find_entries([argument])


def test_a_file_that_does_not_exist_is_told_of() -> None:
    assert find_entries(["none.png"]) == ([], ["none.png does not exist; check the name"])


def test_an_image_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "study" / "slides" / "a.png"
    walk = tmp_path / "study" / "out" / "walks" / "a.json"
    for file in (image, walk):
        file.parent.mkdir(parents=True)
        file.touch()
    for name in (str(image), "slides/a.png", "study/slides/a.png", "/elsewhere/study/slides/a.png"):
        found = image_file(name, walk)
        assert found is not None, name
        assert found.samefile(image), name
    monkeypatch.chdir(image.parent)
    assert image_file("a.png", walk) == Path("a.png")
    monkeypatch.chdir(tmp_path)
    assert image_file("a.png", walk) is None
    assert image_file("/elsewhere/a.png", walk, image.parent) == image
    assert image_file("https://host.example/slides/a.png", walk) is None
    assert image_file("a\0.png", walk) is None


def test_the_folder_that_was_named_comes_first(tmp_path: Path) -> None:
    old, new = tmp_path / "old" / "a.png", tmp_path / "new" / "a.png"
    for file in (old, new):
        file.parent.mkdir()
        file.touch()
    assert image_file(str(old), tmp_path / "walks" / "a.json", new.parent) == new


def test_certainty() -> None:
    walk = walk_of("a", (10, 10), logit=0.0)
    assert certainty(walk) == 0.5
    labels = replace(walk, multilabel=True, probabilities=np.array([0.9, 0.3]))
    assert certainty(labels) == pytest.approx(0.7)
    assert certainty(replace(walk, outcome=NO_EVIDENCE)) < 0.5


@pytest.mark.parametrize(
    ("size", "last"), [((1, 1), 0), ((512, 9), 0), ((513, 1), 1), ((1024, 1025), 2)]
)
def test_the_first_level_is_one_tile(size: tuple[int, int], last: int) -> None:
    tiling = Tiling(*size)
    assert tiling.last_level == last
    assert tiling.tile(0, 0, 0) is not None
    assert tiling.tile(0, 1, 0) is None
    assert tiling.tile(0, 0, 1) is None
