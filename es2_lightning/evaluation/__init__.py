"""Floor 4: attacks, judges and what they measure. Knows nothing of how a model was trained."""
