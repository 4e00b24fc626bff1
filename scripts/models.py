"""What can classify, and what models can be made of: ``tnet models``."""

import difflib
import fnmatch
from typing import Annotated, Any

import typer

from tnet.errors import UsageError


def models(
    pattern: Annotated[
        str | None,
        typer.Argument(
            metavar="[PATTERN]", help="Show the backbones whose names fit, such as 'resnet*'."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the models that come with TNet, the recipes, and the backbones to train others."""
    from tnet.backbones.generic import timm_names
    from tnet.scripts.report import print_json, shown

    backbones = timm_names()
    if pattern is not None:
        backbones = _fitting(pattern, backbones)
    if as_json:
        print_json({"shipped": _shipped(), "backbones": backbones, "recipes": _recipes()})
    elif pattern is not None:
        print("\n".join(backbones))
    else:
        print(shown(_page(_shipped(), _recipes(), len(backbones))))


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


def _page(shipped: list[dict[str, Any]], recipes: list[dict[str, Any]], backbones: int) -> str:
    from tnet.scripts.report import columns

    come = [
        [
            f"  {model['name']}",
            f"{model['bands']} bands of {model['dtype']}",
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
            f"Backbones: {backbones} timm architectures. The recipe 'default' takes any that gives",
            "its intermediate maps: backbone=\"resnet18\". List them: tnet models 'resnet*'",
        ]
    )
