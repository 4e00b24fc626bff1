"""The door of the command line: help comes at once, every failure is one line and a code."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer

from tnet import __version__
from tnet.errors import DataError
from tnet.scripts import main as door

resource = pytest.importorskip("resource", reason="CPU time of children is measured on Unix")

HELP_CPU_SECONDS = 0.5
HEAVY = ("albumentations", "lightning", "numpy", "tensorstore", "timm", "torch", "zarr")
COMMANDS = (
    *(
        "demo",
        "info",
        "classify",
        "export",
        "report",
        "split",
        "train",
        "evaluate",
        "convert",
        "link",
        "verify",
        "view",
    ),
    "models",
)


def tnet(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "tnet.scripts.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_takes_half_a_second() -> None:
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "Usage: tnet" in tnet("--help").stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < HELP_CPU_SECONDS, f"CPU seconds of three runs: {took}"


def test_help_of_every_command_loads_nothing_heavy() -> None:
    code = f"""
import sys
from tnet.scripts.main import run
for command in [[], *([name] for name in {COMMANDS})]:
    sys.argv = ["tnet", *command, "--help"]
    assert run() == 0, command
heavy = sorted(set({HEAVY}) & set(sys.modules))
sys.exit(f"loaded for --help: {{heavy}}" if heavy else 0)
"""
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert f"Usage: tnet {name}" in done.stdout


def test_version_is_data() -> None:
    done = tnet("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tnet {__version__}\n", "")


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["info", "--nonsense"]])
def test_wrong_usage_is_code_2(arguments: list[str]) -> None:
    done = tnet(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "nonsense" in done.stderr
    assert "Traceback" not in done.stderr


Outcome = tuple[int, str, str]


@pytest.fixture
def outcome(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run a command with one given body; return its exit code, stdout and stderr."""
    monkeypatch.delenv("TNET_DEBUG", raising=False)

    def run(body: Callable[[], None], *flags: str) -> Outcome:
        app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
        app.callback()(door.options)
        app.command("work")(body)
        monkeypatch.setattr(door, "app", app)
        monkeypatch.setattr(sys, "argv", ["tnet", *flags, "work"])
        return (door.run(), *capsys.readouterr())

    return run


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        sys.stdout.write("data\n")
        raise error

    return body


def test_what_the_user_can_mend_is_one_sentence(outcome: Callable[..., Outcome]) -> None:
    error = DataError("a\nb\x1b[2J.svs is cut short: copy it again")
    said = "tnet: a\\nb\\x1b[2J.svs is cut short: copy it again\n"
    assert outcome(raising(error)) == (3, "data\n", said)


def test_our_own_mistake_is_one_line(outcome: Callable[..., Outcome]) -> None:
    code, _, said = outcome(raising(KeyError("x")))
    assert code == 1
    assert said.startswith("tnet: internal error: KeyError: 'x'; ")
    assert "--debug" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("error", [DataError("cut short"), KeyError("x")], ids=["theirs", "ours"])
def test_debug_shows_where(outcome: Callable[..., Outcome], error: Exception) -> None:
    code, _, said = outcome(raising(error), "--debug")
    assert code == getattr(error, "exit_code", 1)
    assert said.startswith("Traceback")
    assert said.splitlines()[-1].startswith("tnet: ")


def test_debug_from_the_environment(
    outcome: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TNET_DEBUG", "1")
    assert "Traceback" in outcome(raising(KeyError("x")))[2]


def test_interrupted_is_code_130(outcome: Callable[..., Outcome]) -> None:
    assert outcome(raising(KeyboardInterrupt())) == (130, "data\n", "tnet: interrupted\n")


@pytest.mark.parametrize("code", [0, 4, 6])
def test_a_command_chooses_its_code(outcome: Callable[..., Outcome], code: int) -> None:
    assert outcome(raising(typer.Exit(code))) == (code, "data\n", "")


def test_a_reader_may_leave_early() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-P", "-m", "tnet.scripts.main", "--help"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
