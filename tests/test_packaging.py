"""The wheel holds every module and nothing else, and works away from the repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAPPED = ("adapters", "datasets", "scripts")
VENDOR = ("openseadragon.min.js", "openseadragon.LICENSE.txt")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command, which must succeed; return its stdout."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git would commit, links as links, so that building leaves nothing behind."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("the list of files to package comes from git")
    listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT)
    copy = tmp_path_factory.mktemp("packaging") / "tree"
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, copy / name
        if source.is_symlink() or source.is_file():  # not what was deleted since the last commit
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return copy


@pytest.fixture(scope="session")
def wheel(tree: Path) -> Path:
    vendor = tree / "scripts" / "viewer" / "vendor"
    vendor.mkdir()  # as scripts/assets.sh fills it
    for name in VENDOR:
        (vendor / name).write_text("from npm")
    out = tree.parent / "dist"
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", out, cwd=tree)
    (file,) = out.glob("*.whl")
    return file


def test_holds_every_module_and_data_file(tree: Path, wheel: Path) -> None:
    expected = {"tnet/py.typed"}
    for folder, kind in [("tnet", "*.py"), ("tnet/models", "*.safetensors")]:
        expected |= {str(file.relative_to(tree)) for file in real_files(tree / folder, kind)}
    for folder in MAPPED:
        files = real_files(tree / folder, "*.py")
        expected |= {f"tnet/{file.relative_to(tree)}" for file in files}
    viewer = tree / "scripts" / "viewer"
    for file in [*real_files(viewer / "static", "*"), *(viewer / "vendor" / n for n in VENDOR)]:
        expected.add(f"tnet/{file.relative_to(tree)}")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == expected


def real_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files under ``folder`` whose names match, links not followed."""
    folders = (Path(name) for name, _, _ in os.walk(folder, followlinks=False))
    return [file for each in folders for file in each.glob(pattern)]


def test_declares_one_name_and_one_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        (info,) = tops - {"tnet"}
        commands = archive.read(f"{info}/entry_points.txt").decode()
        licences = [name for name in archive.namelist() if name.endswith("/LICENSE")]
    assert info.endswith(".dist-info")
    assert commands.split() == ["[console_scripts]", "tnet", "=", "tnet.scripts.main:main"]
    assert licences


def test_works_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-deps", "--no-index", "--no-compile", "--target", target, wheel, cwd=tmp_path)
    code = "import tnet, tnet.adapters as a; print(tnet.__version__, tnet.__file__, a.__file__)"
    said = run(sys.executable, "-P", "-c", code, cwd=tmp_path, PYTHONPATH=str(target)).split()
    version, *places = said
    assert version in wheel.name
    assert places == [str(target / "tnet/__init__.py"), str(target / "tnet/adapters/__init__.py")]


def test_a_source_release_can_be_tested(tree: Path) -> None:
    out = tree.parent / "sdist"
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", out, cwd=tree)
    (file,) = out.glob("*.tar.gz")
    shutil.unpack_archive(file, out, filter="data")
    (root,) = (path for path in out.iterdir() if path.is_dir())
    viewer = "scripts/viewer/"
    needed = ("scripts/test.sh", "scripts/setup_venv.sh", "tests/conftest.py", "LICENSE")
    for name in (
        *needed,
        f"{viewer}package-lock.json",
        f"{viewer}.npmrc",
        f"{viewer}static/viewer.js",
    ):
        assert (root / name).is_file(), name
    for folder in MAPPED:
        names = {file.name for file in (tree / folder).glob("*.py")}
        assert {file.name for file in (root / folder).glob("*.py")} == names
        assert not (root / "tnet" / folder).exists()
