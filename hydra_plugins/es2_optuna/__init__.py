"""Hydra finds plugins below `hydra_plugins` alone."""
