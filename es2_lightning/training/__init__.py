"""Floor 3: the LightningModules, the stage schedule, the data. Knows nothing of attacks."""
