"""Where the config folder is: the checkout's, else the one that was installed with the package."""

from __future__ import annotations

from pathlib import Path


def conf_dir() -> Path:
    """The absolute path of `conf/`.

    In a checkout `conf/` stands beside the package, and is always the one that is read, however
    the package was installed. In a wheel it is inside the package.

    Raises:
        FileNotFoundError: neither is there, so the installation is damaged.
    """
    return _conf_dir(Path(__file__).resolve().parent.parent)


def _conf_dir(package: Path) -> Path:
    checkout, installed = package.parent / "conf", package / "conf"
    if checkout.is_dir() and _is_ours(package.parent / "pyproject.toml"):
        return checkout
    if installed.is_dir():
        return installed
    raise FileNotFoundError(
        f"The config folder is missing: neither {checkout} (a checkout) nor {installed} (an "
        "installed package) is there. Install the package again."
    )


def _is_ours(pyproject: Path) -> bool:
    # Someone may install the package into the folder of a project with a conf/ of its own.
    return pyproject.is_file() and 'name = "es2-lightning"' in pyproject.read_text("utf-8")


def package_path(relative: str) -> str:
    """The absolute path of a file or folder inside the package, for `${package_path:…}`."""
    return str(Path(__file__).resolve().parents[1] / relative)
