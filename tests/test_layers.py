"""Who may import whom: scripts -> datasets -> adapters -> engine, and no circles anywhere."""

import ast
import os
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {"tnet": "engine", "adapters": "adapters", "datasets": "datasets", "scripts": "scripts"}
LONGEST_FILE = 300

# Add to these only what needs no torch: it is all that a reader of a format may know of us.
ADAPTERS_MAY_USE = (
    "tnet.background",
    "tnet.errors",
    "tnet.facts",
    "tnet.geometry",
    "tnet.halving",
    "tnet.maps",
    "tnet.pyramid",
    "tnet.record",
    "tnet.resample",
)
NOT_IN_ADAPTERS = ("lightning", "pytorch_lightning", "timm", "torch", "torchvision")
LIGHTNING = ("lightning", "pytorch_lightning")
MAY_USE_LIGHTNING = ("tnet.task", "tnet.datasets", "tnet.scripts")
FORBIDDEN_FLOORS = {
    "engine": ("tnet.adapters", "tnet.datasets", "tnet.scripts"),
    "adapters": ("tnet.datasets", "tnet.scripts"),
    "datasets": ("tnet.scripts",),
    "scripts": (),
}


@dataclass(frozen=True)
class Import:
    """One name that a file imports, wherever the statement stands."""

    target: str
    name: str = ""  # X of `from target import X`
    for_types_only: bool = False


def house() -> dict[str, Path]:
    """Return module name -> file, for every module of the four floors, links not followed."""
    modules = {}
    for floor in FLOORS:
        for folder, _, files in os.walk(ROOT / floor, followlinks=False):
            for file in sorted(Path(folder) / name for name in files if name.endswith(".py")):
                parts = file.relative_to(ROOT).with_suffix("").parts
                name = ".".join(parts if floor == "tnet" else ("tnet", *parts))
                modules[name.removesuffix(".__init__")] = file
    return modules


def imports(source: str, module: str = "") -> set[Import]:
    """Return what a file imports: at its top, inside functions, for types only, or by string."""
    tree = ast.parse(source)
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for child in ast.walk(statement)
    }
    return {
        Import(target, name, node in typing_only)
        for node in ast.walk(tree)
        for target, name in _named(node, module)
    }


def _named(node: ast.AST, module: str) -> list[tuple[str, str]]:
    """Return (target, name) for each thing that one statement or call imports."""
    if isinstance(node, ast.Import):
        return [(alias.name, "") for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{module}, line {node.lineno}: relative import"
        return [(node.module or "", alias.name) for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        constants = (name.value for name in node.args[:1] if isinstance(name, ast.Constant))
        return [(str(value), "") for value in constants]
    return []


def is_within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def floor_of(module: str) -> str:
    parts = module.split(".")
    return FLOORS.get(parts[1], "engine") if len(parts) > 1 else "engine"


def breaches(module: str, found: Import) -> list[str]:
    """Say which rules an import breaks."""
    floor = floor_of(module)
    name = f"{found.target}.{found.name}" if found.name else found.target
    broken = []
    if is_within(name, FORBIDDEN_FLOORS[floor]):
        broken.append(f"the {floor} may not import {name}")
    if floor != "scripts" and name != "tnet.__version__" and name_of_the_root(found):
        broken.append(f"{name} comes through the root, tnet/__init__.py; name its own module")
    if is_within(name, LIGHTNING) and not is_within(module, MAY_USE_LIGHTNING):
        broken.append(f"only tnet/task.py, datasets and scripts import lightning, not {module}")
    if floor == "adapters":
        if is_within(name, NOT_IN_ADAPTERS):
            broken.append(f"adapters may not import {name}")
        if is_within(name, ("tnet",)) and not is_within(
            name, (*ADAPTERS_MAY_USE, "tnet.adapters", "tnet.__version__")
        ):
            broken.append(f"adapters know of the engine only {ADAPTERS_MAY_USE}, not {name}")
    return broken


def name_of_the_root(found: Import) -> bool:
    """Say whether an import takes a public name from the lazily loading ``tnet`` itself."""
    return found.target == "tnet" and f"tnet.{found.name}" not in HOUSE


HOUSE = house()
RULED = sorted(name for name in HOUSE if name != "tnet")  # tnet/__init__.py loads lazily


@pytest.mark.parametrize("module", RULED)
def test_imports_only_what_lies_below(module: str) -> None:
    found = imports(HOUSE[module].read_text(encoding="utf-8"), module)
    broken = sorted({rule for one in found for rule in breaches(module, one)})
    assert not broken, "\n".join([f"{module}:", *broken])


def test_no_circles() -> None:
    graph: dict[str, set[str]] = {}
    for module in RULED:
        found = imports(HOUSE[module].read_text(encoding="utf-8"), module)
        named = {
            f"{one.target}.{one.name}" if f"{one.target}.{one.name}" in HOUSE else one.target
            for one in found
            if not one.for_types_only
        }
        graph[module] = {name for name in named if name in RULED}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", sorted(HOUSE))
def test_files_are_short(module: str) -> None:
    lines = len(HOUSE[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{module} has {lines} lines; {LONGEST_FILE} are the most"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tnet.model", "import tnet.adapters.tiff"),
        ("tnet.model", "from tnet import datasets"),
        ("tnet.model", "def f():\n    from tnet.scripts.main import app"),
        ("tnet.model", "import_module('tnet.adapters')"),
        ("tnet.model", "from lightning import Trainer"),
        ("tnet.model", "from tnet import walk"),
        ("tnet.adapters.tiff", "import torch.nn"),
        ("tnet.adapters.tiff", "from tnet.model import TNet"),
        ("tnet.adapters.tiff", "if TYPE_CHECKING:\n    import tnet.datasets"),
        ("tnet.adapters.tiff", "from tnet import Walk"),
        ("tnet.datasets.manifest", "from tnet.scripts import main"),
    ],
)
def test_the_rules_catch(module: str, source: str) -> None:
    assert any(breaches(module, one) for one in imports(source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tnet.task", "import lightning"),
        ("tnet.datasets.module", "import lightning\nfrom tnet.adapters import open_pyramid"),
        ("tnet.adapters.tiff", "import tifffile\nfrom tnet.geometry import Region"),
        ("tnet.scripts.main", "from tnet import __version__, walk"),
        ("tnet.adapters.report", "from tnet import __version__"),
    ],
)
def test_the_rules_allow(module: str, source: str) -> None:
    assert not any(breaches(module, one) for one in imports(source))


def test_a_relative_import_is_refused() -> None:
    with pytest.raises(AssertionError, match="relative import"):
        imports("from .geometry import Region")
