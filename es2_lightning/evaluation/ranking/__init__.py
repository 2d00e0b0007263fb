"""Ranking of candidate responses (SRR, arXiv 2505.15710): candidates, baselines, figures."""
