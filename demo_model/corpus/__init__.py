"""Deterministic corpus of the demo model: a small closed world, split by content into training and held-out items."""
