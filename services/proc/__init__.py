"""Micrographs become particles: the proc Scheme."""
