"""Floor 0: where prompts come from, and what is wrong with them. Knows nothing of models."""
