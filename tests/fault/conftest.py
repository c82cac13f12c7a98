"""The fault tests compare with the same undisturbed session as the system tests."""

from tests.system.conftest import raw30, undisturbed

__all__ = ["raw30", "undisturbed"]
