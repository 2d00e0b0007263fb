"""Tests of what a training step costs."""
