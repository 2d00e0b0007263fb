"""Attacks on a chat model, each a small class chosen by `_target_`."""
