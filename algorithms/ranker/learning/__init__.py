"""Training, evaluation and release of the ranker's network. Source: class-ranker.md 5.4-5.6, 9."""
