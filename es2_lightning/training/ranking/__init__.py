"""Fitting rankers of responses (SRR, arXiv 2505.15710)."""
