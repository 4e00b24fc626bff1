"""A training's configuration: plain values by name, from a YAML file and from --set."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from tnet.errors import UsageError
from tnet.scripts.keys import Key, Keys

# What a run's own config.yaml says besides: of no effect when it is read.
ABOUT = "about"
_LARGEST_FILE = 2**20
_NOTHING = ("", "none", "null", "off", "~")
_TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Config(Keys):
    """How to train; see :class:`tnet.scripts.keys.Keys` for what each field is.

    Raises:
        UsageError: if a value is of the wrong kind or out of bounds.
    """

    def __post_init__(self) -> None:
        for name, key in keys().items():
            # Frozen: a checked value takes the place of what was given.
            object.__setattr__(self, name, _checked(name, key, getattr(self, name)))

    def changed(self, values: Mapping[str, Any]) -> "Config":
        """Return the configuration with other values; texts are read as --set has them.

        Raises:
            UsageError: for an unknown key, with the nearest one, or a value that does not fit.
        """
        known = keys()
        for name in values:
            if name not in known:
                raise UsageError(_unknown(name))
        return replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as YAML and JSON know them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    def differs(self, other: "Config") -> str | None:
        """Return the first key, of those that matter, in which two configurations differ."""
        for name, key in keys().items():
            if not key.free and getattr(self, name) != getattr(other, name):
                return name
        return None


def keys() -> dict[str, Key]:
    """Return every key, in order."""
    return {each.name: each.metadata["key"] for each in fields(Keys)}


def read_config(path: Path, *, about: bool = False) -> dict[str, Any]:
    """Return the values of a YAML file, unchecked.

    Args:
        path: of the file.
        about: whether to return what a run says of itself, too.

    Raises:
        UsageError: if it cannot be read, or holds no named values.
    """
    import yaml

    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UsageError(f"{path}: is too large to be a configuration")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise UsageError(f"{path}: is not YAML ({said})") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise UsageError(f"{path}: must hold one 'key: value' a line")
    if not about:
        values.pop(ABOUT, None)
    return values


def settings_of(pairs: Iterable[str]) -> dict[str, Any]:
    """Return the values of --set key=value, as texts.

    Raises:
        UsageError: if one has no "=".
    """
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set takes key=value, such as --set epochs=20; got {pair!r}")
        values[name.strip()] = value.strip()
    return values


def table() -> list[Sequence[str]]:
    """Return a row a key: its name, its default, what it takes, and what it is."""
    defaults = Config()
    rows: list[Sequence[str]] = [("key", "default", "takes", "what it is")]
    for name, key in keys().items():
        value = getattr(defaults, name)
        rows.append((name, "" if value is None else _text_of(value), _takes(key), key.about))
    return rows


def _text_of(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _takes(key: Key) -> str:
    if key.choices:
        return "|".join(key.choices)
    kind = {
        "text": "text",
        "whole": "whole number",
        "number": "number",
        "truth": "true|false",
        "wholes": "8,2,1",
        "named": "{name: value}",
    }[key.kind]
    if key.low is not None and key.high is not None and key.high < 1e5:
        return f"{kind} {key.low:g}..{key.high:g}"
    return kind


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, keys(), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else "see `tnet train --help-config`"
    return f"there is no key {name!r}; {hint}"


def _checked(name: str, key: Key, value: Any) -> Any:
    """Return a value in its own type, or say what the key takes."""
    if isinstance(value, str) and key.kind != "text":
        value = _parsed(key, value)
    if value is None or _is_nothing(key, value):
        if not key.optional:
            raise UsageError(f"{name} must be given; it is {_wanted(key)}")
        return None
    fit = _FITTING[key.kind](value)
    if fit is None:
        raise UsageError(f"{name} must be {_wanted(key)}, got {value!r}")
    for number in fit if isinstance(fit, tuple) else (fit,):
        if not _within(key, number):
            raise UsageError(f"{name} must be {_wanted(key)}, got {value!r}")
    return fit


def _is_nothing(key: Key, value: Any) -> bool:
    return isinstance(value, str) and value.lower() in _NOTHING and value not in key.choices


def _within(key: Key, value: Any) -> bool:
    if key.choices:
        return value in key.choices
    if key.low is not None and value < key.low:
        return False
    return key.high is None or value <= key.high


def _parsed(key: Key, text: str) -> Any:
    """Return what a text means for a key that is no text; the text itself if nothing."""
    if key.optional and text.lower() in _NOTHING:
        return None
    try:
        return _READING[key.kind](text)
    except ValueError:
        return text


def _read_named(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


_READING: dict[str, Any] = {
    "truth": lambda text: _TRUTHS.get(text.lower(), text),
    "whole": int,
    "number": float,
    "wholes": lambda text: [int(part) for part in text.split(",")],
    "named": _read_named,
}


def _as_whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if math.isfinite(value) and int(value) == value else None


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _as_wholes(value: Any) -> tuple[int, ...] | None:
    listed = list(value) if isinstance(value, list | tuple) else [value]
    numbers = [_as_whole(number) for number in listed]
    if not numbers or None in numbers:
        return None
    return tuple(number for number in numbers if number is not None)


def _as_named(value: Any) -> dict[str, Any] | None:
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return dict(value)
    return None


_FITTING: dict[str, Any] = {
    "text": lambda value: str(value) if isinstance(value, str | int | float) else None,
    "whole": _as_whole,
    "number": _as_number,
    "truth": lambda value: value if isinstance(value, bool) else None,
    "wholes": _as_wholes,
    "named": _as_named,
}


def _wanted(key: Key) -> str:
    """Say what a key takes."""
    if key.choices:
        return f"one of {', '.join(key.choices)}"
    what = {
        "text": "a text",
        "whole": "a whole number",
        "number": "a number",
        "truth": "true or false",
        "wholes": "whole numbers such as 8,2,1",
        "named": "named values such as {width: 1.5}",
    }[key.kind]
    bounds = ""
    if key.low is not None and key.high is not None:
        bounds = f" from {key.low:g} to {key.high:g}"
    elif key.low is not None:
        bounds = f" of at least {key.low:g}"
    return what + bounds + (", or none" if key.optional else "")
