"""From the rows of a table to what they say of an image."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from tnet.adapters import is_url
from tnet.datasets.boxes import parse_boxes
from tnet.datasets.table import Row, Table, TableError, listed, plain
from tnet.geometry import Region

Split = Literal["train", "val", "test"]

# Names of a column, in the order in which they are looked for.
COLUMNS = {
    "image": ("image", "path", "file", "filename", "slide", "image_path", "filepath", "file_path"),
    "label": ("label", "labels", "class", "target", "classes"),
    "split": ("split", "set", "subset", "partition"),
    "group": ("group", "patient", "case", "patient_id", "case_id", "subject"),
    "weight": ("weight", "sample_weight"),
    "mpp": ("mpp", "µm/px", "um/px", "µm_per_px", "um_per_px", "microns_per_pixel"),
    "box": ("box", "boxes", "bbox"),
    "x": ("x",),
    "y": ("y",),
    "width": ("width", "w"),
    "height": ("height", "h"),
    "mask": ("mask", "mask_path", "mask_file"),
}
_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_CORNERS = ("x", "y", "width", "height")
_MISSING = "nan"  # as programs write a cell that they know nothing of
_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a manifest.

    Attributes:
        row: its line in the file, the header being 1.
        image: absolute, or relative to where the program runs.
        labels: one; several or none with multi-label.
        split: what it is for, if the table says so.
        group: what it must not be parted from, such as its patient.
        weight: how much it counts in the loss.
        mpp: µm per px of level 0, instead of what the file says.
        boxes: where the evidence is, in pixels of level 0.
        mask: a picture of where the evidence is, see :func:`tnet.datasets.boxes.mask_boxes`.
    """

    row: int
    image: Path
    labels: tuple[str, ...]
    split: Split | None = None
    group: str | None = None
    weight: float = 1.0
    mpp: float | None = None
    boxes: tuple[Region, ...] = ()
    mask: Path | None = None


class Reading:
    """From the rows of a table to entries."""

    def __init__(self, table: Table, separator: str | None, group: str | None, split: bool) -> None:
        self._table, self._separator = table, separator
        self._place = {role: table.find(names) for role, names in COLUMNS.items()}
        self._check_corners()
        for role in COLUMNS:
            if self._place[role] is not None and not (role == "group" and group is not None):
                self._check_alone(role)
        if group is not None:
            self._place["group"] = self._named(group)
        if not split:
            self._place["split"] = None
        for role in ("image", "label"):
            if self._place[role] is None:
                raise TableError(
                    f"{table.path} has no column {role!r}, only "
                    f"{', '.join(map(repr, table.columns))}; name one of them {role}"
                )

    def entries(self) -> tuple[Entry, ...]:
        """Return one entry a row."""
        for role in COLUMNS:
            self._check_known(role)
        self._check_empty("image", "name the file of the image")
        if self._separator is None:
            self._check_empty("label", "give every image a label, or leave the row out")
        if any(self._cell(row, "split") for row in self._table.rows):
            self._check_empty("split", "write train, val or test in every row")
        return tuple(self._entry(row) for row in self._table.rows)

    def _check_corners(self) -> None:
        """Leave fewer than three columns of a box alone; they may be about something else."""
        missing = [corner for corner in _CORNERS if self._place[corner] is None]
        if len(missing) == 1:
            there = ", ".join(corner for corner in _CORNERS if corner not in missing)
            raise TableError(
                f"{self._table.path} has the columns {there} of a box and no column "
                f"{missing[0]!r}; add it, or name the others differently if they are no box"
            )
        if missing:
            self._place |= dict.fromkeys(_CORNERS)

    def _check_alone(self, role: str) -> None:
        """Make sure that no other column says the same, perhaps otherwise."""
        names = [plain(name) for name in COLUMNS[role]]
        same = [column for column in self._table.columns if plain(column) in names]
        if len(same) > 1:
            raise TableError(
                f"{self._table.path} has {len(same)} columns for the {role}, "
                f"{' and '.join(map(repr, same))}; keep one of them, or name the others differently"
            )

    def _check_known(self, role: str) -> None:
        """Make sure that nothing that is missing is taken for a name."""
        rows = [
            row.number for row in self._table.rows if self._cell(row, role).casefold() == _MISSING
        ]
        refuse(
            self._table.path,
            rows,
            f"has the {role} 'nan', which means that it is missing",
            f"have the {role} 'nan', which means that it is missing",
            "fill it in, or leave the cell empty where nothing is to be said",
        )

    def _named(self, column: str) -> int:
        place = self._table.find([column])
        if place is None:
            raise TableError(
                f"{self._table.path} has no column {column!r}, only "
                f"{', '.join(map(repr, self._table.columns))}"
            )
        return place

    def _cell(self, row: Row, role: str) -> str:
        place = self._place[role]
        return "" if place is None else row.cells[place]

    def _check_empty(self, role: str, way_out: str) -> None:
        rows = [row.number for row in self._table.rows if not self._cell(row, role)]
        refuse(self._table.path, rows, f"has no {role}", f"have no {role}", way_out)

    def _entry(self, row: Row) -> Entry:
        mask = self._cell(row, "mask")
        return Entry(
            row=row.number,
            image=self._file(row, self._cell(row, "image")),
            labels=self._labels(self._cell(row, "label")),
            split=self._split(row),
            group=self._cell(row, "group") or None,
            weight=self._number(row, "weight", 1.0, lambda value: value >= 0, "at least 0"),
            mpp=self._number(row, "mpp", None, lambda value: value > 0, "above 0 µm"),
            boxes=self._boxes(row),
            mask=self._file(row, mask) if mask else None,
        )

    def _file(self, row: Row, name: str) -> Path:
        """Return where a file is; names from Windows may have backslashes between folders."""
        if is_url(name):
            raise TableError(
                f"{self._table.path}: row {row.number}: {name} is an address; images to learn "
                "from must be files, so download it"
            )
        path = self._table.path.parent / name
        if "\\" in name and not path.exists():
            return self._table.path.parent / name.replace("\\", "/")
        return path

    def _labels(self, text: str) -> tuple[str, ...]:
        if self._separator is None:
            return (text,)
        parts = (part.strip() for part in text.split(self._separator))
        return tuple(dict.fromkeys(part for part in parts if part))

    def _split(self, row: Row) -> Split | None:
        text = self._cell(row, "split")
        if not text:
            return None
        if plain(text) not in _SPLITS:
            column = self._table.columns[self._place["split"] or 0]
            raise TableError(
                f"{self._table.path}: row {row.number} has the split {text!r}; what stands in the "
                f"column {column!r} must be train, val or test"
            )
        return _SPLITS[plain(text)]

    def _number(
        self,
        row: Row,
        role: str,
        default: _Value,
        fits: Callable[[float], bool],
        wanted: str,
    ) -> float | _Value:
        text = self._cell(row, role)
        if not text:
            return default
        value = self._float(text)
        if value is None or not fits(value):
            raise TableError(
                f"{self._table.path}: row {row.number} has the {role} {text!r}; it must be a "
                f"number {wanted}"
            )
        return value

    def _float(self, text: str) -> float | None:
        """Return a finite number; where columns are not apart by commas it may have one."""
        if self._table.delimiter != ",":
            text = text.replace(",", ".")
        try:
            value = float(text)
        except ValueError:
            return None
        return value if abs(value) < float("inf") else None

    def _boxes(self, row: Row) -> tuple[Region, ...]:
        corners = [self._cell(row, corner) for corner in _CORNERS]
        numbers = [self._float(text) if text else None for text in corners]
        try:
            boxes = parse_boxes(self._cell(row, "box"))
            if any(corners):
                written = (
                    text if number is None else repr(number)
                    for text, number in zip(corners, numbers, strict=True)
                )
                boxes = (*boxes, *parse_boxes(",".join(written)))
        except ValueError as error:
            raise TableError(
                f"{self._table.path}: row {row.number} has a box that {error}"
            ) from error
        return boxes


def refuse(path: Path, rows: Sequence[int], one: str, several: str, way_out: str) -> None:
    """Raise a TableError that names rows, if there are any."""
    if rows:
        said = one if len(rows) == 1 else several
        raise TableError(f"{path}: {listed(rows)} {said}; {way_out}")


def together(pairs: Iterable[tuple[_Key, _Value]]) -> dict[_Key, list[_Value]]:
    """Gather values by their keys, both in their order."""
    found: defaultdict[_Key, list[_Value]] = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return found
