"""Where the reference data that does not live in the repository is found."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(path: str) -> Path:
    """Return a file or folder of the shared reference data; skip the test where it is absent."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"reference data not here: ../shared/{path}")
    return found
