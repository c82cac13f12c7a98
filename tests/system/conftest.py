"""One simulated session, and its undisturbed result, for all tests of whole sessions."""

from pathlib import Path

import pytest

from tests.system import sessions


@pytest.fixture(scope="session")
def raw30(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a session of 30 small movies."""
    return sessions.simulate(tmp_path_factory.mktemp("raw") / "Simulated30")


@pytest.fixture(scope="session")
def undisturbed(raw30: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Return the outcome of processing it without disturbance."""
    project = tmp_path_factory.mktemp("undisturbed") / "project"
    result = sessions.process(raw30, project)
    assert result.returncode == 0, result.stdout + result.stderr
    found = sessions.outcome(project)
    ledger = found["ledger"]
    assert isinstance(ledger, dict)
    assert ledger["stages"]["proc"] == {"seen": 30, "done": 30, "refused": 0, "pending": 0}
    assert ledger["particles"] > 300
    return found
