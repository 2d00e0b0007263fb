"""One module for each picture; each has a `draw` that gives a matplotlib figure."""
