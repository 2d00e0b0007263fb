"""Composing, checking and saving the config of a command."""
