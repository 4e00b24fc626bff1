"""Official checkpoints become model files: ``tnet models import van_tiny_754.pth.tar ...``."""

from pathlib import Path
from typing import Annotated

import typer

from tnet.errors import DataError, counted
from tnet.scripts.options import AsJson


def import_model(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="What the authors' code saved, or others'.")
    ],
    arch: Annotated[
        str, typer.Option(metavar="NAME", help="The timm architecture that it is of: van_b0.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="NAME.safetensors, to be written."),
    ],
    classes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Names of the classes, one a line; else numbers."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a model file of an official checkpoint, to classify or to train further with.

    The model looks at the whole image once, with the checkpoint's backbone and classifier. Its
    location module has learned nothing yet. Nothing in the checkpoint is executed.
    """
    from tnet.bundle import save
    from tnet.checkpoints import imported_model
    from tnet.scripts.output import print_json, say, shown

    model = imported_model(checkpoint, arch, None if classes is None else _names(classes))
    written = save(model, output)
    if "note" in model.training_record:
        say(model.training_record["note"])
    parameters = sum(weights.numel() for weights in model.backbone.parameters())
    if as_json:
        print_json(
            {
                "model": str(written),
                "arch": arch,
                "classes": len(model.classes),
                "bands": model.expects.bands,
                "backbone_parameters": parameters,
                "training": model.training_record,
            }
        )
        return
    print(
        shown(
            f"{written}: {arch}, {counted(model.expects.bands, 'band')}, "
            f"{counted(len(model.classes), 'class', 'classes')}, "
            f"a backbone of {parameters / 1e6:.1f} M parameters"
        )
    )


def _names(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
