"""Hydra finds plugins in the namespace package `hydra_plugins`, which has no `__init__.py`."""

# Hydra executes a plugin's modules without entering them in `sys.modules` first, which dataclasses
# need; what is imported here is entered.
from hydra_plugins.es2_launcher.launcher import ES2Launcher

__all__ = ["ES2Launcher"]
