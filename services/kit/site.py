"""The site's configuration: roots, microscopes with their cameras, defaults. One TOML file.

What a site knows and no file of a microscope says. It is read when a session is opened; a running
session keeps what it was opened with. Precedence of a setting: command line, then session, then
site, then built-in. Source: architecture.md section 8; acquisition.md sections 1.2, 2.1, 2.5.
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from services.kit.errors import Misuse
from services.kit.misfits import Misfit, misfits
from services.kit.paths import Layout, atomic_write
from services.kit.sitetables import Camera, Cluster, Defaults, Microscope, Root, Site

__all__ = ["Camera", "Cluster", "Defaults", "Microscope", "Root", "Site", "SiteError"]
__all__ += ["decode", "freeze", "frozen", "layered", "load", "locate", "session_fields"]

PLACE = Path("/etc/coldstream/coldstream.toml")
VARIABLE = "COLDSTREAM_CONFIG"
MAX_BYTES = 1 << 20  # a site of twenty microscopes needs 20 KB


class SiteError(Misuse):
    """The site's file cannot be used.

    Parameters
    ----------
    path
        The file.
    found
        Everything that is wrong with it.
    """

    def __init__(self, path: Path, found: Sequence[Misfit]):
        more = f" (and {len(found) - 1} more: coldstream doctor)" if len(found) > 1 else ""
        super().__init__(f"{path}: {found[0]}{more}")
        self.path, self.misfits = path, found


def locate(config: Path | None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the site's file: --config, else COLDSTREAM_CONFIG, else /etc; None where none is.

    Raises
    ------
    Misuse
        A file that was asked for is not there.
    """
    for asked, by in ((config, "--config"), (environment.get(VARIABLE) or None, VARIABLE)):
        if asked is not None:
            path = Path(asked).absolute()
            if not path.is_file():
                raise Misuse(f"{by} {path} is not a file: correct it, or leave it out")
            return path
    return PLACE if PLACE.exists() else None


def load(path: Path | None) -> Site:
    """Return the configuration of a file; the built-in one for None.

    Raises
    ------
    SiteError
        The file cannot be read, is no TOML or does not fit; the message names file, key, value,
        remedy and, for an unknown key, the nearest known ones.
    """
    if path is None:
        return Site()
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        table = tomllib.loads(content.decode())
    except OSError as error:
        trouble = Misfit("the file", None, f"cannot be read: {error.strerror}", "see ls -l")
        raise SiteError(path, (trouble,)) from error
    except ValueError as error:  # no UTF-8, no TOML, too large
        trouble = Misfit("the file", None, f"is no TOML: {error}", "correct that line")
        raise SiteError(path, (trouble,)) from error
    return decode(table, path)


def decode(table: Mapping[str, object], path: Path) -> Site:
    """Return the configuration of a table that was read from `path`; raises like `load`."""
    found = tuple(misfits(dict(table), Site))
    if found:
        raise SiteError(path, found)
    return msgspec.convert(table, Site, str_keys=True)


def freeze(layout: Layout, site: Site) -> None:
    """Keep the configuration that a session is opened with, for its services."""
    atomic_write(_frozen(layout), msgspec.json.format(msgspec.json.encode(site)))


def frozen(layout: Layout) -> Site:
    """Return the configuration a session was opened with; the built-in one where none was kept.

    Raises
    ------
    Misuse
        The file was changed by hand and does not fit any more.
    """
    path = _frozen(layout)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Site)
    except FileNotFoundError:
        return Site()
    except msgspec.MsgspecError as error:
        raise Misuse(f"{path}: {error}; open the session again to have it written") from error


def _frozen(layout: Layout) -> Path:
    return layout.hidden / "site.json"


def session_fields(site: Site) -> dict[str, object]:
    """Return what the site sets of a new session, by the names of `Session`'s fields."""
    defaults = site.defaults
    fields = {
        "particle_diameter_A": defaults.particle_diameter_A,
        "amplitude_contrast": defaults.amplitude_contrast,
        "settle_s": defaults.settle_s,
        "stuck_s": defaults.stuck_s,
        "metadata_wait_s": defaults.metadata_wait_s,
        "workers": site.cluster.workers,
        "worker_memory": site.cluster.worker_memory,
        "scheduler": site.cluster.scheduler,
    }
    settings = dict(defaults.settings)
    if defaults.ctf_resolution_A is not None:
        settings.setdefault("proc__select_mics__select_maxval", f"{defaults.ctf_resolution_A:g}")
    return {
        **{name: value for name, value in fields.items() if value is not None},
        **({"settings": settings} if settings else {}),
    }


def layered(*layers: tuple[str, Mapping[str, object]]) -> dict[str, tuple[object, str]]:
    """Return each setting with the name of the layer it comes from.

    Parameters
    ----------
    layers
        (name, settings), the strongest first: command line, session, site, built-in. None is no
        value.
    """
    found: dict[str, tuple[object, str]] = {}
    for name, settings in layers:
        for key, value in settings.items():
            if value is not None:
                found.setdefault(key, (value, name))
    return found
