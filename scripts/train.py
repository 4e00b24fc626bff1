"""Train on images of one's own: ``tnet train DATA.csv --out RUN``."""

from pathlib import Path
from typing import Annotated

import typer

from tnet.errors import UsageError
from tnet.scripts.options import AsJson

_OUT_OF_TABLE = ("model", "recipe", "backbone", "pretrained", "glimpses", "start", "device")


def _show_keys(wanted: bool) -> None:
    if wanted:
        from tnet.scripts.config import table
        from tnet.scripts.output import columns, shown

        print(shown("\n".join(columns(table()))))
        raise typer.Exit


def train(  # noqa: PLR0913 - Typer makes a flag of every argument
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="CSV or Parquet table with the columns image and label, and if you have them "
            "split, group, weight, mpp, box, mask.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Folder of the training; the same command goes on."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="tnet, or to compare: thumbnail, random, tiles."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="Recipe of the model, see `tnet models`.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Any timm architecture; see `tnet models`.")
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Weights of the backbone: a checkpoint or a model."),
    ] = None,
    glimpses: Annotated[
        str | None,
        typer.Option(metavar="8,2,1", help="Glimpses of each view, level by level."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="RUN|MODEL", help="Start from its weights; the plan may be another."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Anything else; may be repeated."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML file of keys, such as a run's config.yaml."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="auto|cpu|cuda", help="Where to train.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and how long it takes.")
    ] = False,
    as_json: AsJson = False,
    show_keys: Annotated[
        bool,
        typer.Option(
            "--help-config",
            callback=_show_keys,
            is_eager=True,
            help="Show every key of --set and --config, and leave.",
        ),
    ] = False,
) -> None:
    """Train a model on labelled images, straight from the files.

    Plan, batch and schedule have defaults that follow from the images; all are shown before the
    start. RUN holds model.safetensors (the best), last.safetensors, config.yaml and metrics.csv.
    After a kill or Ctrl-C the same command goes on where it was.
    """
    from tnet.scripts.config import Config, read_config, settings_of
    from tnet.scripts.output import print_json, shown
    from tnet.scripts.training import dry, run_training

    if out is None and not dry_run:
        raise UsageError("name a folder for the training with --out, such as --out run1")
    flags = (model, recipe, backbone, pretrained, glimpses, start, device)
    for name, value in zip(_OUT_OF_TABLE, flags, strict=True):
        if value is not None and not value.strip():
            flag = {"start": "--from"}.get(name, f"--{name}")
            raise UsageError(f"{flag} is empty; say something, or leave it out for its default")
    values = {} if config is None else read_config(config)
    values |= settings_of(settings or [])
    values |= {n: v for n, v in zip(_OUT_OF_TABLE, flags, strict=True) if v is not None}
    told = Config().changed(values)
    if dry_run:
        page = dry(data, told)
    else:
        assert out is not None
        page = run_training(data, out, told)
    if as_json:
        print_json(page)
    else:
        print(shown("\n".join(page_lines(page))))


def page_lines(page: dict[str, object]) -> list[str]:
    """Return the end of a training, or of a dry run, as lines."""
    if "model" not in page:
        return ["nothing was trained (--dry-run)"]
    measured = page.get("measured")
    shown = []
    if isinstance(measured, dict):
        shown = [f"{name} {value:.3f}" for name, value in measured.items() if name[:4] == "val_"]
    return [
        f"{page['model']}: of epoch {page['best_epoch']}, the best of {page['epochs']}",
        *([f"  {', '.join(shown)}"] if shown else []),
    ]
