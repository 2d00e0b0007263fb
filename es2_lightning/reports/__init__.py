"""Floor 5: tables and pictures of what was measured. Knows nothing of how numbers were made."""
