"""Judges: what became of one prompt, told from the model's output."""
