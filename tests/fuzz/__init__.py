"""Fuzzing of the metadata parsers: `python -m tests.fuzz --seconds 600`, or `make fuzz`."""
