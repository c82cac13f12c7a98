"""The class ranker: scores 2D class averages and selects from them. Source: class-ranker.md."""
