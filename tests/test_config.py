"""The configuration of a training: what it takes, what it refuses, and how it is kept."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tnet.errors import UsageError
from tnet.scripts.config import ABOUT, Config, keys, read_config, settings_of, table


def test_texts_become_values_of_their_kind() -> None:
    told = Config().changed(
        {
            "glimpses": "8,2,1",
            "lr": "1e-3",
            "epochs": "5",
            "normalise": "yes",
            "background": "none",
            "backbone": "resnet18",
            "options": "{width: 0.5}",
        }
    )
    assert told.glimpses == (8, 2, 1)
    assert (told.lr, told.epochs, told.normalise) == (1e-3, 5, True)
    assert told.background is None
    assert told.backbone == "resnet18"
    assert told.options == {"width": 0.5}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"epoch": 1}, "there is no key 'epoch'; did you mean 'epochs'"),
        ({"xyzzy": 1}, "see `tnet train --help-config`"),
        ({"epochs": "many"}, "epochs must be a whole number of at least 1, got 'many'"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"epochs": "none"}, "epochs must be given"),
        ({"lr": -1}, "lr must be a number of at least 0, got -1"),
        ({"lr": "nan"}, "lr must be a number"),
        ({"main_reinforce": 2}, "main_reinforce must be a number from 0 to 1, got 2"),
        ({"model": "forest"}, "model must be one of tnet, thumbnail, random, tiles, got 'forest'"),
        ({"glimpses": "a,b"}, "glimpses must be whole numbers such as 8,2,1"),
        ({"normalise": "maybe"}, "normalise must be true or false, got 'maybe'"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"options": "[1]"}, "options must be named values"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_sentence(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("(", r"\(")) as caught:
        Config().changed(values)
    assert "\n" not in str(caught.value)


def test_a_written_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    import yaml

    told = Config().changed({"glimpses": "4,1", "anneal": "16", "separator": "|", "seed": 3})
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(told.to_dict() | {ABOUT: {"data": "x.csv"}}))
    assert Config().changed(read_config(file)) == told


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    with pytest.raises(UsageError, match=r"c\.yaml: cannot be read"):
        read_config(file)
    for text, said in [("a: [1", "is not YAML"), ("- 1", "one 'key: value' a line")]:
        file.write_text(text)
        with pytest.raises(UsageError, match=said):
            read_config(file)
    file.write_text("")
    assert read_config(file) == {}


def test_a_setting_needs_an_equals_sign() -> None:
    assert settings_of(["a=1", "b = x=y"]) == {"a": "1", "b": "x=y"}
    with pytest.raises(UsageError, match="--set takes key=value"):
        settings_of(["epochs"])


def test_only_keys_that_matter_make_a_difference() -> None:
    usual = Config()
    assert usual.differs(usual.changed({"device": "cpu", "keep_open": 3})) is None
    assert usual.differs(usual.changed({"lr": 0.5})) == "lr"


def test_every_key_is_described() -> None:
    listed = {row[0]: row for row in table()[1:]}
    assert set(listed) == set(keys())
    assert all(len(row[3]) > 5 for row in listed.values())


@given(st.integers(1, 10**6))
def test_numbers_may_be_texts(number: int) -> None:
    assert Config().changed({"epochs": str(number)}).epochs == number
