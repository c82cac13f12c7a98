"""Watches a microscope session: which movies are complete, and what is known of each."""
