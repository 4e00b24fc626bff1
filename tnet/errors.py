"""What can go wrong through no fault of ours, each as one sentence: what, why, and the way out.

The command line turns these into its exit codes; nothing else in the project prints or exits.
"""


class TNetError(ValueError):
    """A mistake that the user can mend; its text is complete and needs no traceback."""

    exit_code = 2


class UsageError(TNetError):
    """A wrong flag, plan or combination of options."""

    exit_code = 2


class DataError(TNetError):
    """A file that is missing, damaged, foreign or unfit for the model."""

    exit_code = 3


class UnsupportedImage(DataError):
    """No adapter, or not this adapter, reads the file."""


class ModelFileError(DataError):
    """A model file that is damaged, foreign, or made by a version that we don't know."""


def counted(number: int, one: str, several: str | None = None) -> str:
    """Return a number with the word for what is counted: "1 epoch", "2 epochs", "1 batch"."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def one_line(error: Exception) -> str:
    """Return what a library says of an error, without its line breaks, to be put in a sentence."""
    return " ".join(str(error).split())
