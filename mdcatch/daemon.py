"""Puts mdcatch together: the service that decides and the source that looks."""

from pathlib import Path

from mdcatch.config import MdcatchConfig
from mdcatch.orders import Orders
from mdcatch.patience import Patient
from mdcatch.service import Mdcatch, Show
from mdcatch.source import RawSource
from services.kit.commands import Mailbox
from services.kit.errors import Misuse


def build(
    config: MdcatchConfig, show: Show | None = None, orders: Mailbox | None = None
) -> tuple[Mdcatch, Patient | Orders]:
    """Return the service and its source.

    Parameters
    ----------
    config
        Values of the site and of the person.
    show
        Writes what is shown of the state.
    orders
        Where people's decisions are put.

    Raises
    ------
    Misuse
        When a folder is not an absolute path below "/", or given twice.
    """
    folders = [config.raw, *(root.path for root in config.roots)]
    for name, folder in zip(["raw", *["roots"] * len(config.roots)], folders, strict=True):
        path = Path(folder)
        if not path.is_absolute() or path == Path(path.anchor) or ".." in path.parts:
            raise Misuse(f"{name} is {folder!r}: give the absolute path of a session's folder")
        if folders.count(folder) > 1:
            raise Misuse(f"{name} is {folder!r} twice: give each folder once")
    source = Patient(RawSource(config))
    return Mdcatch(config, show), source if orders is None else Orders(source, orders)
