"""Tables of labelled images: what is read from them, and what is said of mistakes."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile
from command_line import picture, write_png, write_zarr

from tnet.datasets.boxes import mask_boxes
from tnet.datasets.checking import check_images
from tnet.datasets.copies import same_content
from tnet.datasets.manifest import Manifest, read_manifest
from tnet.errors import DataError
from tnet.geometry import Region

BASIC = "image,label\na.png,cat\nb.png,dog\n"


def table(folder: Path, text: str, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str, **options: Any) -> Manifest:
    return read_manifest(table(folder, text), images=False, **options)


def refused(folder: Path, text: str, **options: Any) -> str:
    options.setdefault("images", False)
    with pytest.raises(DataError) as caught:
        read_manifest(table(folder, text), **options)
    assert caught.value.exit_code == 2
    said = str(caught.value)
    assert "data.csv" in said
    assert "\n" not in said
    return said


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_of_all_programs_are_read(
    tmp_path: Path, delimiter: str, encoding: str, end: str
) -> None:
    lines = [["Image", "LABEL"], ["ä.png", "grün"], [], ["sub/b.png", "dog"], ["", ""]]
    text = end.join(delimiter.join(line) for line in lines)
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode(encoding))
    manifest = read_manifest(path, images=False)
    assert [(e.row, e.image, e.labels) for e in manifest.entries] == [
        (2, tmp_path / "ä.png", ("grün",)),
        (4, tmp_path / "sub/b.png", ("dog",)),
    ]
    assert manifest.classes == ("dog", "grün")
    assert [manifest.target(entry) for entry in manifest.entries] == [1, 0]


def test_a_spreadsheet_may_say_how_its_columns_are_apart(tmp_path: Path) -> None:
    manifest = read(tmp_path, "sep=|\r\nimage|label\r\na.png|1,5\r\nb.png|2\r\n")
    assert [entry.row for entry in manifest.entries] == [3, 4]
    assert manifest.classes == ("1,5", "2")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_a_spreadsheet_says_may_end_as_any_line(tmp_path: Path, end: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(end.join(["sep=;", "image;label", "a.png;x", "b.png;y"]).encode())
    assert read_manifest(path, images=False).classes == ("x", "y")


def test_something_to_learn_from_must_count(tmp_path: Path) -> None:
    said = refused(tmp_path, "image,label,weight\na.png,cat,0\nb.png,dog,0\n")
    assert "every row to train on has the weight 0" in said
    read(tmp_path, "image,label,weight\na.png,cat,0\nb.png,dog,1\n")


def test_every_column_is_understood(tmp_path: Path) -> None:
    text = (
        "Slide;Class;Set;Patient;Weight;µm/px;box;Mask;stain\n"
        "a.png;x;Training;p1;0,5;0,25;1,2,3,4; 10 20 30 40;m.png;blue\n"
    ).replace("1,2,3,4; 10 20 30 40", '"1,2,3,4; 10 20 30 40"')
    manifest = read(tmp_path, text + "b.png;y;valid;;;;;;\n")
    first, second = manifest.entries
    assert (first.split, first.group, first.weight, first.mpp) == ("train", "p1", 0.5, 0.25)
    assert first.boxes == (Region(1, 2, 3, 4), Region(10, 20, 30, 40))
    assert first.mask == tmp_path / "m.png"
    assert (second.split, second.group, second.weight, second.mpp) == ("val", None, 1.0, None)
    assert (second.boxes, second.mask) == ((), None)
    assert manifest.part("val") == (second,)
    assert manifest.part("test") == ()


def test_columns_that_are_no_box_are_left_alone(tmp_path: Path) -> None:
    text = "image,label,width,height,note\na.png,1,640,480,nan\nb.png,0,64,48,\n"
    assert [entry.boxes for entry in read(tmp_path, text).entries] == [(), ()]
    text = "image,label,x,y\na.png,1,6,4\nb.png,0,3,5\n"
    assert [entry.boxes for entry in read(tmp_path, text).entries] == [(), ()]


def test_boxes_in_four_columns(tmp_path: Path) -> None:
    text = "image,label,x,y,width,height\na.png,1,5,6.5,7,8\nb.png,0,,,,\n"
    manifest = read(tmp_path, text)
    assert [entry.boxes for entry in manifest.entries] == [(Region(5, 6.5, 7, 8),), ()]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["10", "9", "-1", "0.5"], ("-1", "0.5", "9", "10")),
        (["b10", "b2", "B1"], ("B1", "b2", "b10")),
        (["2", "10", "none"], ("2", "10", "none")),
    ],
)
def test_classes_come_in_their_natural_order(
    tmp_path: Path, labels: list[str], classes: tuple[str, ...]
) -> None:
    rows = "".join(f"{i}.png,{label}\n" for i, label in enumerate(labels))
    assert read(tmp_path, "image,label\n" + rows).classes == classes


def test_classes_may_be_given(tmp_path: Path) -> None:
    manifest = read(tmp_path, "image,label\na.png,dog\n", classes=["dog", "cat"])
    assert manifest.classes == ("dog", "cat")
    assert manifest.target(manifest.entries[0]) == 0
    said = refused(tmp_path, BASIC, classes=["dog", "bird"])
    assert "row 2 has a label that is none of dog, bird" in said


def test_several_labels_an_image(tmp_path: Path) -> None:
    text = "image,label\na.png,cat | dog|cat\nb.png,\nc.png,dog\n"
    manifest = read(tmp_path, text, separator="|")
    assert manifest.multilabel
    assert [entry.labels for entry in manifest.entries] == [("cat", "dog"), (), ("dog",)]
    assert [manifest.target(entry) for entry in manifest.entries] == [(1, 1), (0, 0), (0, 1)]


def test_files_are_looked_for_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write_png(tmp_path / "sub" / "a.png", picture())
    write_png(tmp_path / "b.png", picture())
    path = table(tmp_path, f"image,label\nsub\\a.png,cat\n{tmp_path / 'b.png'},dog\n")
    first, second = read_manifest(path).entries
    assert first.image.exists()
    assert second.image == tmp_path / "b.png"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no rows"),
        ("image,label\n", "holds no rows"),
        ("picture,label\na,b\n", "no column 'image', only 'picture', 'label'"),
        ("image,kind\na,b\n", "no column 'label'"),
        ("image,label\na.png,cat\n,dog\n", "row 3 has no image"),
        ("image,label\na.png,cat\nb.png,\nc.png,\n", "rows 3 and 4 have no label"),
        ("image,label\na.png,cat\nb.png,cat\n", "only one label, 'cat'"),
        ("image,label\na.png,Cat\nb.png,cat\n", "labels 'Cat' and 'cat', which look like one"),
        ("image,label\na.png,1\nb.png,1.0\n", "rows 2 and 3 have the labels '1' and '1.0'"),
        ("image,label\na.png,cat\nb.png,dog,1\n", "row 3 has 3 values and the header 2"),
        ("image,label\na.png,cat\na.png,dog\n", "rows 2 and 3 name the same image, a.png"),
        ("image,label\na.png,cat\nx/../a.png,dog\n", "rows 2 and 3 name the same image"),
        ("image,label,split\na,1,train\nb,2,tset\n", "row 3 has the split 'tset'"),
        ("image,label,split\na,1,train\nb,2,\n", "row 3 has no split"),
        ("image,label,weight\na,1,heavy\nb,2,1\n", "row 2 has the weight 'heavy'"),
        ("image,label,weight\na,1,1\nb,2,-1\n", "row 3 has the weight '-1'"),
        ("image,label,weight\na,1,1\nb,2,inf\n", "row 3 has the weight 'inf'"),
        ("image,label,mpp\na,1,0\nb,2,1\n", "row 2 has the mpp '0'; it must be a number above 0"),
        ('image,label,box\na,1,"1,2,3"\nb,2,\n', "row 2 has a box that must be x,y,width,height"),
        ('image,label,box\na,1,"1,2,0,3"\nb,2,\n', "row 2 has a box that must have a width"),
        ('image,label,box\na,1,"-9,2,5,3"\nb,2,\n', "row 2 has a box that lies outside"),
        ("image,label,x,y,w,h\na,1,1,2,3,\nb,2,,,,\n", "row 2 has a box that must be"),
        ("image,label\nhttps://x.org/a.zarr,1\nb,2\n", "row 2: https://x.org/a.zarr is an address"),
        ("image,label,x,y,w\na,1,1,2,3\nb,2,,,\n", "columns x, y, width of a box and no column 'h"),
        ("image,label,class\na,1,x\nb,2,y\n", "2 columns for the label, 'label' and 'class'"),
        ("image,label,Label\na,1,x\nb,2,y\n", "2 columns for the label, 'label' and 'Label'"),
        ("image,label,case,patient\na,1,x,x\nb,2,y,y\n", "for the group, 'case' and 'patient'"),
        ("image,label\na,1\nb,NaN\nc,2\n", "row 3 has the label 'nan', which means that it is"),
        ("image,label,group\na,1,nan\nb,2,nan\n", "rows 2 and 3 have the group 'nan'"),
        ("image,label,mpp\na,1,nan\nb,2,1\n", "row 2 has the mpp 'nan'"),
    ],
)
def test_mistakes_name_the_file_and_the_rows(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_a_group_in_two_splits_is_told_with_all_rows(tmp_path: Path) -> None:
    text = "image,label,split,case\na,1,train,p\nb,2,test,q\nc,1,test,p\nd,2,train,p\n"
    said = refused(tmp_path, text)
    assert "the group 'p' is in train (rows 2 and 5) and in test (row 4)" in said
    assert read(tmp_path, text, split=False).entries[0].split is None


def test_groups_may_be_another_column(tmp_path: Path) -> None:
    text = "image,label,patient,Centre No\na,1,p,x\nb,2,q,x\n"
    assert [e.group for e in read(tmp_path, text).entries] == ["p", "q"]
    assert [e.group for e in read(tmp_path, text, group="centre no").entries] == ["x", "x"]
    assert "no column 'hospital'" in refused(tmp_path, text, group="hospital")


def test_missing_files_are_named(tmp_path: Path) -> None:
    said = refused(tmp_path, BASIC, images=True)
    assert "rows 2 and 3 name image files that do not exist" in said
    write_png(tmp_path / "a.png", picture())
    assert f"row 3 names {tmp_path / 'b.png'}" in refused(tmp_path, BASIC, images=True)
    write_png(tmp_path / "b.png", picture(seed=1))
    text = "image,label,mask\na.png,cat,\nb.png,dog,m.png\n"
    assert f"row 3 names {tmp_path / 'm.png'}" in refused(tmp_path, text, images=True)


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv cannot be read \(No such file"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "data.csv").write_bytes("image,label\nä.png,x\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"row 2 holds a letter that is not in UTF-8.*Windows"):
        read_manifest(tmp_path / "data.csv")


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "data.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"pyarrow, which is not installed; install it"):
        read_manifest(tmp_path / "data.parquet")


def test_parquet_values_are_read_as_a_csv_would_hold_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Column(list[Any]):
        def to_pylist(self) -> list[Any]:
            return self

    class Found:
        column_names = ("image", "label", "weight", "note")
        columns = (
            Column(["a.png", "b.png", None]),
            Column([1.0, 0.0, None]),
            Column([0.5, float("nan"), None]),
            Column([None, 3, None]),
        )

    module = ModuleType("pyarrow.parquet")
    module.read_table = lambda path: Found()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", module)
    monkeypatch.setitem(sys.modules, "pyarrow", ModuleType("pyarrow"))
    manifest = read_manifest(tmp_path / "data.parquet", images=False)
    assert manifest.classes == ("0", "1")
    assert [(e.row, e.weight) for e in manifest.entries] == [(2, 0.5), (3, 1.0)]


def test_real_parquet_is_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet is an extra of the user's")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"image": ["a.png", "b.png"], "label": [3, 1], "split": ["train", "test"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "data.parquet")
    manifest = read_manifest(tmp_path / "data.parquet", images=False)
    assert manifest.classes == ("1", "3")
    assert [entry.split for entry in manifest.entries] == ["train", "test"]


def test_a_mask_is_stretched_over_its_image(tmp_path: Path) -> None:
    mask = np.zeros((10, 20), np.uint8)
    mask[1:3, 2:6] = 255
    mask[6, 15] = mask[7, 16] = 1
    path = write_png(tmp_path / "mask.png", mask)
    assert mask_boxes(path, 200, 50) == (Region(20, 5, 40, 10), Region(150, 30, 20, 10))
    empty = write_png(tmp_path / "empty.png", np.zeros((4, 4), np.uint8))
    assert mask_boxes(empty, 200, 50) == ()


def images(folder: Path, count: int, **columns: list[str]) -> Manifest:
    """Write PNG images of two classes and their table."""
    for number in range(count):
        write_png(folder / f"{number}.png", picture(seed=number))
    names = ["image", "label", *columns]
    rows = [
        [f"{number}.png", "ab"[number % 2], *(column[number] for column in columns.values())]
        for number in range(count)
    ]
    text = "\n".join(",".join(row) for row in [names, *rows])
    return read_manifest(table(folder, text))


def test_readable_images_come_with_their_facts(tmp_path: Path) -> None:
    manifest = images(tmp_path, 3, mpp=["0.5", "", ""])
    done: list[tuple[int, int]] = []
    checked = check_images(manifest.entries, lambda i, n: done.append((i, n)))
    assert checked.readable == manifest.entries
    assert (checked.unreadable, checked.duplicates) == ((), ())
    fact = checked.facts[0]
    assert (fact.width, fact.height, fact.bands, fact.dtype) == (120, 90, 3, "uint8")
    assert (fact.mpp, checked.facts[1].mpp, fact.format) == (0.5, None, "PNG")
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_few_unreadable_images_are_left_out_and_named(tmp_path: Path) -> None:
    manifest = images(tmp_path, 20)
    path = manifest.entries[7].image
    path.write_bytes(path.read_bytes()[:200])  # the header says all is well
    checked = check_images(manifest.entries)
    assert len(checked.readable) == len(checked.facts) == 19
    ((entry, reason),) = checked.unreadable
    assert entry.row == 9
    assert "7.png" in reason


def test_many_unreadable_images_are_an_error(tmp_path: Path) -> None:
    manifest = images(tmp_path, 20)
    for number in (3, 8):
        (tmp_path / f"{number}.png").write_text("no image")
    with pytest.raises(DataError, match=r"data\.csv: 2 of 20 images cannot.*rows 5 and 10") as e:
        check_images(manifest.entries, source=manifest.path)
    assert e.value.exit_code == 3
    assert "3.png" in str(e.value)


def test_copies_of_an_image_are_found(tmp_path: Path) -> None:
    images(tmp_path, 4)
    (tmp_path / "2.png").write_bytes((tmp_path / "0.png").read_bytes())
    rows = "0.png,a,{}\n1.png,b,train\n2.png,a,{}\n3.png,b,test\n"
    path = table(tmp_path, "image,label,split\n" + rows.format("train", "train"))
    checked = check_images(read_manifest(path).entries)
    assert [[entry.row for entry in same] for same in checked.duplicates] == [[2, 4]]
    path = table(tmp_path, "image,label,split\n" + rows.format("train", "test"))
    with pytest.raises(DataError, match="rows 2 and 4 hold the same image in different splits"):
        check_images(read_manifest(path).entries)


def test_copies_of_folders_are_found_and_near_copies_are_none(tmp_path: Path) -> None:
    pixels = picture(64, 64)
    other = pixels.copy()
    other[32, 32] ^= 1
    for name, content in (("a", pixels), ("b", pixels), ("c", other)):
        write_zarr(tmp_path / f"{name}.zarr", content)
        tifffile.imwrite(tmp_path / f"{name}.tif", content)
    rows = "".join(f"{n}.{s},{n}{s}\n" for s in ("zarr", "tif") for n in "abc")
    found = same_content(read_manifest(table(tmp_path, "image,label\n" + rows)).entries)
    assert sorted([entry.image.name for entry in same] for same in found) == [
        ["a.tif", "b.tif"],
        ["a.zarr", "b.zarr"],
    ]


def test_images_of_other_bands_or_values_are_an_error(tmp_path: Path) -> None:
    manifest = images(tmp_path, 3)
    write_png(tmp_path / "1.png", picture(bands=1))
    with pytest.raises(DataError, match=r"row 3: 1 band of uint8; rows 2 and 4: 3 bands of uint8"):
        check_images(manifest.entries)


def test_a_box_outside_its_image_is_an_error(tmp_path: Path) -> None:
    manifest = images(tmp_path, 2, box=['"100,80,50,50"', '"120,0,5,5"'])
    said = r"data\.csv: row 3: .*1\.png: the box 120,0,5,5 lies outside the image of 120"
    with pytest.raises(DataError, match=said):
        check_images(manifest.entries, source=manifest.path)


def test_masks_are_read_with_their_images(tmp_path: Path) -> None:
    dots = np.zeros((9, 12), np.uint8)
    write_png(tmp_path / "none.png", dots)
    dots[2, 3] = dots[7, 9] = 1
    write_png(tmp_path / "two.png", dots)
    (tmp_path / "broken.png").write_bytes(b"no image")
    masks = ["two.png", "none.png", "broken.png", *[""] * 17]
    checked = check_images(images(tmp_path, 20, mask=masks).entries)
    assert [fact.boxes for fact in checked.facts[:3]] == [2, 0, 0]
    ((entry, reason),) = checked.unreadable
    assert entry.row == 4
    assert "its mask cannot be read: " in reason
    assert "broken.png" in reason


def test_an_image_without_a_number_cannot_be_read(tmp_path: Path) -> None:
    lines = ["image,label"]
    for number in range(20):
        pixels = picture(seed=number).astype(np.float32)
        pixels[: 90 - number] = np.nan  # of the first all
        tifffile.imwrite(tmp_path / f"{number}.tif", pixels, photometric="rgb")
        lines.append(f"{number}.tif,{'ab'[number % 2]}")
    checked = check_images(read_manifest(table(tmp_path, "\n".join(lines))).entries)
    ((entry, reason),) = checked.unreadable
    assert entry.row == 2
    assert "0.tif: not one of its pixels is a number" in reason


def test_how_much_of_an_image_is_no_background(tmp_path: Path) -> None:
    manifest = images(tmp_path, 3)
    glass = np.full((90, 120, 3), 250, np.uint8)
    write_png(tmp_path / "0.png", glass)
    glass[:, :60] = 100
    write_png(tmp_path / "1.png", glass)
    shown = [fact.shown for fact in check_images(manifest.entries).facts]
    assert shown == [0, pytest.approx(0.5, abs=0.05), 1]
