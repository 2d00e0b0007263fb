"""What a training step costs, against steps as they are usually written."""
