"""Pages for people: a run's `report.html`, and several runs side by side."""
