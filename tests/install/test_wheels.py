"""What an installation holds: conf/ in a wheel, no copy of it in an editable one, and plugins."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
OFFLINE = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the checkout, so that a build leaves nothing in the original."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("es2_lightning", "conf", "hydra_plugins"):
        shutil.copytree(
            CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    return copy


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _built(wheels: Path) -> set[str]:
    (wheel,) = wheels.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_the_package_its_checkpoint_and_conf(
    checkout: Path, tmp_path: Path
) -> None:
    wheels = tmp_path / "wheels"
    subprocess.run([*PIP, "wheel", *OFFLINE, str(checkout), "-w", str(wheels)], check=True)
    built = _built(wheels)
    package = {f"es2_lightning/{name}" for name in _files(checkout / "es2_lightning")}
    conf = {f"es2_lightning/conf/{name}" for name in _files(checkout / "conf")}
    assert "es2_lightning/conf/train.yaml" in conf
    assert any(name.endswith(".safetensors") for name in package)
    plugins = {f"hydra_plugins/{name}" for name in _files(checkout / "hydra_plugins")}
    # With an `__init__.py`, other projects' plugins would not be found.
    assert "hydra_plugins/es2_launcher/launcher.py" in plugins
    assert "hydra_plugins/__init__.py" not in plugins
    assert {name for name in built if ".dist-info/" not in name} == package | conf | plugins


def test_an_editable_wheel_holds_no_copy(checkout: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    subprocess.run(
        [sys.executable, "-c", f"import hatchling.build as b; b.build_editable({str(wheels)!r})"],
        cwd=checkout,
        check=True,
    )
    assert {n for n in _built(wheels) if ".dist-info/" not in n} == {"_es2_lightning.pth"}


@pytest.mark.parametrize("editable", [True, False], ids=["editable", "wheel"])
def test_the_command_runs_from_any_folder(editable: bool, checkout: Path, tmp_path: Path) -> None:
    python = _environment(tmp_path / "venv")
    how = ["-e", str(checkout)] if editable else [str(checkout)]
    subprocess.run([*PIP, "--python", str(python), "install", *OFFLINE, *how], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def loss_of_the_default_run() -> str:
        command = [python, "-m", "es2_lightning.train", "--cfg", "job", "loss=changed"]
        return subprocess.run(
            [*command, "--package", "loss"], cwd=elsewhere, capture_output=True, text=True
        ).stdout

    # A choice that is added to the checkout later is seen by an editable installation alone.
    shutil.copy(next((checkout / "conf" / "loss").iterdir()), checkout / "conf/loss/changed.yaml")
    assert ("kl_weight" in loss_of_the_default_run()) == editable
    if not editable:
        shutil.rmtree(checkout)
    done = subprocess.run(
        [python, "-m", "es2_lightning.train", "--help"],
        cwd=elsewhere,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Configuration groups" in done.stdout
    found = subprocess.run(
        [python, "-m", "es2_lightning.train", "--info", "plugins"],
        cwd=elsewhere,
        capture_output=True,
        text=True,
    )
    assert "ES2Launcher" in found.stdout, found.stderr
    assert list(elsewhere.iterdir()) == []


def _environment(folder: Path) -> Path:
    """A new virtual environment that sees this one's packages, except the editable ones."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(
        subprocess.run(
            [python, "-c", where], check=True, capture_output=True, text=True
        ).stdout.strip()
    )
    # A folder that a .pth file adds has its own .pth files left unread.
    (site_packages / "_parent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python
