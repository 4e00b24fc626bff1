"""What the fields of a plan may hold; each mistake is a sentence that names its field."""

import math
from collections.abc import Sequence

from tnet.errors import UsageError

# More than anyone needs, and little enough that a plan from a stranger's file does no harm.
LARGEST_VIEW = 4096


def is_number(value: object, kind: type) -> bool:
    """Say whether a value is a whole number (``int``), or any number (``float``)."""
    return isinstance(value, kind | int) and not isinstance(value, bool)


def one_of(field: str, value: object, allowed: Sequence[str]) -> None:
    """Raise UsageError unless a value is one of the allowed ones."""
    if value not in allowed:
        raise UsageError(f"plan: {field} must be one of {', '.join(allowed)}, got {value!r}")


def check_view(field: str, sides: Sequence[int]) -> None:
    """Raise UsageError unless there are a width and a height in pixels."""
    good = len(sides) == 2 and all(
        is_number(side, int) and 1 <= side <= LARGEST_VIEW for side in sides
    )
    if not good:
        raise UsageError(
            f"plan: {field} must be two sizes from 1 to {LARGEST_VIEW} pixels, got {sides}"
        )


def check_resolution(field: str, value: object, names: Sequence[str]) -> None:
    """Raise UsageError unless a value is one of the names, or a number of µm per px."""
    if isinstance(value, str):
        one_of(field, value, names)
    elif not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise UsageError(
            f"plan: {field} must be {', '.join(map(repr, names))} or a number of µm per px above "
            f"0, got {value!r}"
        )
