"""The folder of a training: what lies where, and whether it may be gone on with."""

import csv
import errno
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from tnet.errors import DataError, TNetError, UsageError
from tnet.scripts.config import ABOUT, Config, read_config
from tnet.scripts.files import IN_PLACE, OutputError, PlaceError, write_file, writing
from tnet.scripts.output import say

State = Literal["new", "begun", "finished"]


class Run:
    """The files of one training.

    Args:
        folder: its name; it is made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.yaml"
        self.metrics = folder / "metrics.csv"
        self.model = folder / "model.safetensors"
        self.last = folder / "last.safetensors"
        self.splits = folder / "splits.csv"
        self.unreadable = folder / "unreadable.csv"
        self.summary = folder / "summary.json"
        self.log = folder / "log.txt"
        self.inner = folder / "checkpoints"
        self.checkpoint = self.inner / "last.ckpt"
        self.initial = self.inner / "initial.safetensors"
        self.features = folder / "features"

    @property
    def state(self) -> State:
        """How far the training is."""
        if self.summary.exists():
            return "finished"
        return "begun" if self.checkpoint.exists() else "new"

    def sound_checkpoint(self) -> Path | None:
        """Return the checkpoint to go on from; None if there is none.

        Raises:
            DataError: if it cannot be read.
        """
        import torch

        if not self.checkpoint.exists():
            return None
        try:
            torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # torch's reader fails in many ways
            raise DataError(
                f"{self.checkpoint}: is damaged, so the training cannot go on; delete it to begin "
                "again, or name another folder with --out"
            ) from error
        return self.checkpoint

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and keep other trainings out of it.

        Raises:
            UsageError: if it holds files of something else.
            BusyError: if another process trains in it.
            OutputError: if it cannot be made.
        """
        from tnet.adapters.storage.locking import locked

        if self.folder.is_dir() and not self.inner.exists() and any(self.folder.iterdir()):
            raise UsageError(
                f"{self.folder}: holds other files and is no run of `tnet train`; name another "
                "folder with --out"
            )
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"{self.folder}: is a file; name a folder with --out")
        with ExitStack() as stack:
            with writing(self.folder):
                stack.enter_context(locked(self.inner, self.folder))
            yield

    def check(self, config: Config, data: Path) -> None:
        """Make sure that a training that has begun is this one.

        Raises:
            UsageError: naming the key, or the table, that is another one.
        """
        if self.state == "new":
            return
        begun, sha256 = self._begun_with()
        key = config.differs(begun)
        if key is not None:
            before, now = begun.to_dict()[key], config.to_dict()[key]
            raise UsageError(
                f"{self.folder}: was begun with {key}={before!r} and is now asked for {now!r}; "
                "leave it as it was, or name another folder with --out"
            )
        if sha256 != digest(data):
            raise UsageError(
                f"{self.folder}: was begun with another table than {data} is now; name another "
                "folder with --out"
            )

    def _begun_with(self) -> tuple[Config, str]:
        """Return the configuration of the run, and the hash of its table.

        Raises:
            UsageError: if the file that says so is damaged.
        """
        try:
            values = read_config(self.config, about=True)
            about = values.pop(ABOUT, None)
            if not isinstance(about, dict) or not isinstance(about.get("data_sha256"), str):
                raise UsageError("it does not say which table it was")
            return Config().changed(values), about["data_sha256"]
        except UsageError as error:
            said = str(error).removeprefix(f"{self.config}: ")
            raise UsageError(
                f"{self.config}: is damaged, so that nobody knows what the training was ({said}); "
                "put it back as it was, or name another folder with --out"
            ) from error

    def progress(self) -> tuple[int, int] | None:
        """Return how many epochs are done and how many there are to be; None if nobody knows."""
        try:
            epochs = Config().changed(read_config(self.config)).epochs
            return max((int(row["epoch"]) for row in read_rows(self.metrics)), default=0), epochs
        except (TNetError, KeyError, ValueError):
            return None

    def write_config(self, config: Config, about: Mapping[str, Any]) -> None:
        """Write the configuration, and what else is to be known of the run.

        Raises:
            OutputError: if it cannot be written.
        """
        import yaml

        values = config.to_dict() | {ABOUT: dict(about)}
        write_file(self.config, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))

    def tell(self, sentence: str) -> None:
        """Say something, and write it to the log.

        Raises:
            OutputError: if the log cannot be written.
        """
        say(sentence)
        with writing(self.log), self.log.open("a", encoding="utf-8", errors="replace") as file:
            file.write(sentence + "\n")

    def finish(self, page: Mapping[str, Any]) -> None:
        """Write what came of the training, which marks it as finished.

        Raises:
            OutputError: if it cannot be written.
        """
        write_file(self.summary, json.dumps(page, indent=1) + "\n")

    def results(self) -> dict[str, Any]:
        """Return what was written at the end.

        Raises:
            DataError: if that cannot be read.
        """
        try:
            return dict(json.loads(self.summary.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.summary}: cannot be read ({error})") from error


def model_file(named: str) -> Path:
    """Return the model file that a name means: the best one of a run's folder, or itself.

    Raises:
        UsageError: if a folder holds no model.
    """
    folder = Path(named)
    if not folder.is_dir():
        return folder
    model = Run(folder).model
    if not model.is_file():
        raise UsageError(
            f"the folder {folder} holds no {model.name}; name a folder that `tnet train` wrote to, "
            "once its first epoch is over, or a model file"
        )
    return model


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a CSV file, with every name that occurs as a column.

    Raises:
        OutputError: if it cannot be written.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_file(path, text.getvalue())


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file of a run; none if there is no such file.

    Raises:
        DataError: if it cannot be read.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn a full or forbidden disk, whoever met it first, into an OutputError."""
    try:
        with writing(path):
            yield
    except OutputError:
        raise
    except TNetError as error:
        # Writers of their own say DataError; what stands behind it tells why.
        if isinstance(error.__cause__, IN_PLACE):
            raise PlaceError(str(error)) from error
        if isinstance(error.__cause__, OSError):
            raise OutputError(str(error)) from error
        raise
    except RuntimeError as error:  # torch's writer
        if isinstance(error.__cause__, OSError) or _is_about_room(error):
            raise OutputError(f"{path} cannot be written ({error})") from error
        raise


def _is_about_room(error: RuntimeError) -> bool:
    said = str(error)
    return "PytorchStreamWriter" in said or str(errno.ENOSPC) in said or "No space" in said
