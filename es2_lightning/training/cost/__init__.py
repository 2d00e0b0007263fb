"""What a training step costs: FLOPs and bytes, counted and in closed form."""
