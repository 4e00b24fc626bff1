"""What can classify, and what models can be made of: ``tnet models``.

A group of commands of which one needs no name: ``tnet models 'van*'`` is ``tnet models list
'van*'``.
"""

import difflib
import fnmatch
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tnet.errors import UsageError
from tnet.scripts.importing import import_model
from tnet.scripts.options import AsJson

LARGEST_SIDE = 16_384
_HELP = ("--help", "-h")


class _ListsByDefault(TyperGroup):
    """A group that lists when no command of its own is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, *_HELP):
            args = ["list", *args]
        return super().parse_args(ctx, args)


models = typer.Typer(
    name="models",
    cls=_ListsByDefault,
    help="List models, recipes and backbones; import official checkpoints.",
    epilog="`tnet models [PATTERN] [--costs] [--json]` lists: see `tnet models list --help`.",
    rich_markup_mode=None,
)
models.command("import")(import_model)


@models.command("list")
def list_models(
    pattern: Annotated[
        str | None,
        typer.Argument(
            metavar="[PATTERN]", help="Show the backbones whose names fit, such as 'resnet*'."
        ),
    ] = None,
    costs: Annotated[
        bool | None,
        typer.Option(
            "--costs/--no-costs",
            help="Parameters and multiply-adds of the backbones that fit, or of TNet's own; with "
            "--json those of TNet's own are there unless it is said not to.",
        ),
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=LARGEST_SIDE,
            metavar="PIXELS",
            help="Side of the view for --costs, instead of the backbone's own; may be repeated.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the models that come with TNet, the recipes, and the backbones to train others."""
    from tnet.backbones.generic import timm_names
    from tnet.costs import own_backbones
    from tnet.scripts.output import print_json, shown

    if size and not (costs or (costs is None and as_json)):
        raise UsageError("--size is the view's for --costs; give both")
    backbones, own = timm_names(), own_backbones()
    if pattern is not None:
        backbones = _fitting(pattern, backbones)
    counted = backbones if costs and pattern is not None else [n for n in own if n in backbones]
    table = _costs(counted, size) if costs or (costs is None and as_json) else []
    if as_json:
        page = {"shipped": _shipped(), "backbones": backbones, "recipes": _recipes(), "own": own}
        print_json(page if costs is False else page | {"costs": table})
    elif costs:
        print("\n".join(_cost_lines(table)))
    elif pattern is not None:
        print("\n".join(backbones))
    else:
        print(shown(_page(_shipped(), _recipes(), own, len(backbones))))


def _costs(names: list[str], sides: list[int] | None) -> list[dict[str, Any]]:
    from tnet.costs import cost

    sizes = None if not sides else [(side, side) for side in dict.fromkeys(sides)]
    return [cost(name, sizes).to_dict() for name in names]


def _cost_lines(table: list[dict[str, Any]]) -> list[str]:
    from tnet.scripts.output import columns

    rows = [["backbone", "parameters", "view", "multiply-adds"]]
    for entry in table:
        rows.extend(
            [entry["name"], f"{entry['parameters']:,}", view, f"{macs / 1e9:.3f} G"]
            for view, macs in entry["macs"].items()
        )
    return columns(rows, right=(1, 2, 3))


def _fitting(pattern: str, names: list[str]) -> list[str]:
    found = fnmatch.filter(names, pattern)
    if not found:
        close = difflib.get_close_matches(pattern.strip("*?"), names, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "try '*net*'"
        raise UsageError(f"no backbone is called {pattern!r}; {hint}")
    return found


def _shipped() -> list[dict[str, Any]]:
    from tnet.bundle import load, shipped

    listed = []
    for name, file in shipped().items():
        model = load(file)
        listed.append(
            {
                "name": name,
                "file": str(file),
                "recipe": model.recipe[0] if model.recipe else None,
                "classes": list(model.classes),
                "bands": model.expects.bands,
                "dtype": model.expects.dtype,
                "parameters": sum(weights.numel() for weights in model.parameters()),
                "plan": model.plan.to_dict(),
                "training": model.training_record,
            }
        )
    return listed


def _recipes() -> list[dict[str, Any]]:
    """Return each recipe's name, its first line, and its options with their defaults."""
    import inspect

    from tnet.recipes import RECIPES

    return [
        {
            "name": name,
            "about": (inspect.getdoc(recipe) or "").partition("\n")[0],
            "options": {
                option.name: option.default
                for option in inspect.signature(recipe).parameters.values()
                if option.default is not option.empty
            },
        }
        for name, recipe in sorted(RECIPES.items())
    ]


def _page(
    shipped: list[dict[str, Any]], recipes: list[dict[str, Any]], own: list[str], backbones: int
) -> str:
    import textwrap

    from tnet.scripts.output import columns, counted

    come = [
        [
            f"  {model['name']}",
            f"{counted(model['bands'], 'band')} of {model['dtype']}",
            f"{model['parameters'] / 1e6:.1f} M parameters",
            ", ".join(model["classes"]),
        ]
        for model in shipped
    ]
    made = [[f"  {recipe['name']}", recipe["about"]] for recipe in recipes]
    return "\n".join(
        [
            "Models that come with TNet (tnet classify IMAGE --model NAME):",
            *(columns(come) or ["  none"]),
            "",
            "Recipes to build others from:",
            *columns(made),
            "",
            "Backbones that come with TNet (what they cost: tnet models --costs):",
            *textwrap.wrap(", ".join(own), 96, initial_indent="  ", subsequent_indent="  "),
            "",
            f"Backbones: {backbones} timm architectures. The recipe 'default' takes any that gives",
            "its intermediate maps: backbone=\"resnet18\". List them: tnet models 'resnet*'",
        ]
    )
