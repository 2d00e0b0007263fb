"""What more devices bring: a step measured on processes, and predicted for clusters."""
