"""Floor 2: pure functions on tensors. Knows nothing of Lightning, Hydra or transformers."""
