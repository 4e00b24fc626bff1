"""The ``tnet`` command: gathers the commands, and turns every failure into one sentence.

Only Typer is loaded here. A command's file imports what is heavy inside its function, so that
``tnet --help`` answers at once. Data goes to stdout, talk goes to stderr.
"""

import errno
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from tnet import __version__
from tnet.errors import TNetError
from tnet.scripts.classify import classify
from tnet.scripts.convert import convert
from tnet.scripts.demo import demo
from tnet.scripts.evaluate import evaluate
from tnet.scripts.export import export
from tnet.scripts.info import info
from tnet.scripts.link import link
from tnet.scripts.models import models
from tnet.scripts.options import NO_ROOM
from tnet.scripts.output import say
from tnet.scripts.report import report
from tnet.scripts.split import split
from tnet.scripts.train import train
from tnet.scripts.verify import verify
from tnet.scripts.view import view

INTERNAL_ERROR = 1
INTERRUPTED = 130

app = typer.Typer(
    name="tnet",
    help="Classify gigapixel images by looking at almost none of their pixels.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command()(demo)
app.command()(info)
app.command()(classify)
app.command()(export)
app.command()(report)
app.command()(split)
app.command()(train)
app.command()(evaluate)
app.command()(view)
app.command()(convert)
app.command()(link)
app.command()(verify)
app.add_typer(models)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"tnet {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="TNET_DEBUG", help="Show where an error arose.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Take what holds for every command."""
    context.ensure_object(dict)["debug"] = debug


def _fill_streams() -> None:
    """Put nothing in the place of streams that are closed: the next file would take it."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - for good


def _drop_output() -> None:
    """Let go of what is still buffered, which would raise once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run())


def run() -> int:
    """Run the command line of ``sys.argv``; return the exit code.

    0 done; 1 our own mistake, or nobody reads our output any more; 2 wrong usage; 3 data unfit
    for use, all of it; 4 some of it; 5 another process is writing the same; 6 a result cannot be
    written (the disk is full, or it is forbidden); 130 interrupted. A command gives its own with
    ``typer.Exit``.
    """
    _fill_streams()
    settings = {"debug": False}
    try:
        try:
            app(prog_name="tnet", obj=settings)
        finally:
            sys.stdout.flush()
    except SystemExit as leaving:  # how Typer ends, having shown help or a usage error
        if leaving.code == INTERRUPTED:
            say("interrupted")
        return leaving.code if isinstance(leaving.code, int) else 0
    except KeyboardInterrupt:  # while libraries were loading or unloading
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader has left, as `head` does
        _drop_output()
        return 1
    except Exception as error:
        return _told(error, settings["debug"])
    return 0


def _told(error: Exception, debug: bool) -> int:
    """Say in one sentence what went wrong; return the exit code."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, TNetError):
        say(str(error))
        return error.exit_code
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        _drop_output()
        say("what was printed cannot be written (no space left)")
        return NO_ROOM
    way_out = "" if debug else "; for the traceback run `tnet --debug ...` again"
    say(f"internal error: {type(error).__name__}: {error}{way_out}")
    return INTERNAL_ERROR


if __name__ == "__main__":
    main()
