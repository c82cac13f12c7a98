"""Puts mdcatch together: the service that decides and the source that looks."""

from pathlib import Path

from mdcatch.config import MdcatchConfig
from mdcatch.service import Mdcatch
from mdcatch.source import EpuSource
from services.kit.errors import Misuse


def build(config: MdcatchConfig) -> tuple[Mdcatch, EpuSource]:
    """Return the service and its source.

    Parameters
    ----------
    config
        Values of the site and of the person.

    Raises
    ------
    Misuse
        When the raw folder is not an absolute path below "/".
    """
    raw = Path(config.raw)
    if not raw.is_absolute() or raw == Path(raw.anchor) or ".." in raw.parts:
        raise Misuse(f"raw is {config.raw!r}: give the absolute path of a session's folder")
    return Mdcatch(config), EpuSource(config)
