"""What is told before a training begins: settings without effect, and images of background."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import picture, write_png

from tnet.adapters import open_pyramid
from tnet.adapters.array import open_array
from tnet.errors import DataError, TNetError, UsageError
from tnet.plan import Plan, Step
from tnet.recipes import build
from tnet.scripts.blanks import is_blank, without_blanks
from tnet.scripts.config import Config
from tnet.scripts.fitting import Task
from tnet.scripts.parts import Parts, manifest_of, parted
from tnet.scripts.sense import without_effect
from tnet.traversal import traverse

PLAN = Plan(view=(32, 32), steps=(Step(3, 3, 0.5, 2),), background=0.02)


def table(folder: Path, count: int = 8, glass: tuple[int, ...] = (), **columns: str) -> Path:
    """Write images of two classes, some of them all glass, and their table."""
    lines = [",".join(["image", "label", "split", *columns])]
    for number in range(count):
        pixels = picture(seed=number)
        if number in glass:
            pixels[...] = 250
            pixels[0, number] = 249  # no copy of another one
        write_png(folder / f"{number}.png", pixels)
        split = "val" if number >= count - 2 else "train"
        cells = [f"{number}.png", "ab"[number % 2], split, *columns.values()]
        lines.append(",".join(cells))
    path = folder / "data.csv"
    path.write_text("\n".join(lines))
    return path


def parts_of(path: Path, **values: Any) -> Parts:
    config = Config().changed(values)
    return parted(manifest_of(path, config), config)


def task_of(path: Path, **values: Any) -> Task:
    model = build("default", classes=["a", "b"], backbone="test_resnet", norm="group")
    model.plan = PLAN
    config = Config().changed(values)
    return Task(model, "none", parts_of(path, **values), config, "none")


def test_a_mean_has_nothing_to_distill(tmp_path: Path) -> None:
    (note,) = without_effect(task_of(table(tmp_path), distill=1))
    assert note.startswith("distill=1 teaches that all glimpses are worth the same")


def test_a_walk_has_no_share_of_tiles(tmp_path: Path) -> None:
    (note,) = without_effect(task_of(table(tmp_path), tiles_share=0.3))
    assert note == "tiles_share=0.3 is of `--model tiles`, and this model walks"


def test_boxes_are_needed_to_learn_from_boxes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.csv: supervise=1 .* no image .* a box or a mask;"):
        without_effect(task_of(table(tmp_path), supervise=1))
    assert without_effect(task_of(table(tmp_path))) == []
    boxed = table(tmp_path, box='"5,5,20,20"')
    assert without_effect(task_of(boxed, supervise=1)) == []
    assert without_effect(task_of(table(tmp_path), supervise=1, model="random")) == []
    task = task_of(table(tmp_path, box='"5,5,20,20"'), supervise=1)
    task.model.plan = Plan(view=(32, 32))
    (note,) = without_effect(task)
    assert "supervise=1 teaches nothing, for the plan looks once" in note


def test_empty_masks_are_told_and_are_no_boxes(tmp_path: Path) -> None:
    write_png(tmp_path / "empty.png", np.zeros((9, 12), np.uint8))
    path = table(tmp_path, mask="empty.png")
    (note,) = parts_of(path).notes
    assert "8 masks hold nothing but zeros and give no box, the first in row 2: " in note
    with pytest.raises(UsageError, match="a box or a mask that is not empty"):
        without_effect(task_of(path, supervise=1))


def test_a_step_of_one_walk_has_nothing_to_compare(tmp_path: Path) -> None:
    path = table(tmp_path)
    told = {"baseline": "batch", "contrastive": 1, "batch": 1}
    baseline, contrastive = without_effect(task_of(path, **told))
    assert "baseline=batch compares walks" in baseline
    assert "contrastive=1 compares walks" in contrastive
    assert without_effect(task_of(path, **told, samples=2)) == []
    assert without_effect(task_of(path, **(told | {"batch": 2}))) == []


def test_labels_that_look_joined_are_told(tmp_path: Path) -> None:
    def notes(*labels: str, **values: Any) -> str:
        path = table(tmp_path, len(labels))
        lines = path.read_text().splitlines()
        rows = [line.split(",") for line in lines[1:]]
        rows = [[row[0], f'"{label}"', row[2]] for row, label in zip(rows, labels, strict=True)]
        path.write_text("\n".join([lines[0], *map(",".join, rows)]))
        return " ".join(parts_of(path, **values).notes)

    said = notes("a;b", "c", "a;b", "c", "a;b", "c")
    assert "labels such as 'a;b' (rows 2, 4 and 6) look like several" in said
    assert "say --set separator=';'" in said
    assert "look like several" not in notes("a|b", "c", "a|b", "c", "a|b", "c", separator="|")
    assert "separator='/'" in notes("a/b", "a", "b", "a", "a/b", "b")
    assert "look like several" not in notes("a/b", "c", "a/b", "c", "a/b", "c")


def test_nothing_to_train_on_is_a_mistake_in_the_table(tmp_path: Path) -> None:
    path = table(tmp_path)
    path.write_text(path.read_text().replace("train", "test"))
    said = "no row is in the split train, only 6 in test, 2 in val"
    with pytest.raises(TNetError, match=said) as e:
        parts_of(path)
    assert e.value.exit_code == 2


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 1.0])
@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        Plan(view=(32, 32), background=0.02),
        Plan(view=(32, 32), tiles="native", background=0.02),
        Plan(view=(32, 32), steps=PLAN.steps, background=None),
        Plan(view=(32, 32), first_view=(48, 48), steps=PLAN.steps, background=0.0, aspect="keep"),
    ],
    ids=["steps", "one look", "tiles", "everywhere", "larger look"],
)
def test_what_is_blank_is_what_a_walk_has_no_answer_for(share: float, plan: Plan) -> None:
    pixels = np.full((120, 160, 3), 250, np.uint8)
    side = round((share * 120 * 160) ** 0.5)
    pixels[40 : 40 + side, 20 : 20 + side] = 60
    model = build("default", classes=["a", "b"], backbone="test_resnet", aggregate="attention")
    trace = traverse(model.eval(), [open_array(pixels)], plan)
    assert is_blank(open_array(pixels), plan) == trace.empty[0]


def test_images_of_background_are_left_out(tmp_path: Path) -> None:
    path = table(tmp_path, glass=(1, 3, 5, 6))
    parts = without_blanks(parts_of(path), PLAN)
    assert [entry.row for entry in parts.train] == [2, 4, 6]
    assert [entry.row for entry in parts.val] == [9]
    assert [entry.row for entry in parts.blank] == [3, 5, 7, 8]
    left_out, class_gone = parts.notes
    assert "4 images show nothing but background and are left out, the first in row 3" in left_out
    assert class_gone == "so no image is left to learn b from"
    everywhere = Plan(view=(32, 32), steps=PLAN.steps, background=None)
    assert without_blanks(parts_of(path), everywhere).blank == ()


def test_nothing_but_background_cannot_be_learned_from(tmp_path: Path) -> None:
    for glass, use in ((tuple(range(6)), "train"), ((6, 7), "validate")):
        parts = parts_of(table(tmp_path, glass=glass))
        with pytest.raises(DataError, match=f"every image to {use} on shows nothing .*=none"):
            without_blanks(parts, PLAN)


def test_an_image_is_opened_once_it_shows_hardly_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_of(table(tmp_path, glass=(1,)))
    opened: list[str] = []

    def counted(path: Path, **more: Any) -> Any:
        opened.append(path.name)
        return open_pyramid(path, **more)

    monkeypatch.setattr("tnet.scripts.blanks.open_pyramid", counted)
    without_blanks(parts, PLAN)
    assert opened == ["1.png"]
