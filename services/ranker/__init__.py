"""Scores the classes of every 2D classification, and selects from them. Source: class-ranker.md."""
