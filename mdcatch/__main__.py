"""The mdcatch process: `python -m mdcatch --project P`."""

import sys
from pathlib import Path

from mdcatch.config import MdcatchConfig, Overrides
from mdcatch.daemon import build
from mdcatch.orders import Orders, mailbox
from mdcatch.patience import Patient
from mdcatch.roots import gain_folders, watched
from mdcatch.service import Mdcatch
from mdcatch.show import Shower
from services.kit import site as sites
from services.kit.main import service_main
from services.kit.paths import Layout
from services.kit.session import Session


def _build(layout: Layout, session: Session) -> tuple[Mdcatch, Patient | Orders]:
    """Return the daemon of a project."""
    site = sites.frozen(layout)
    role, roots = watched(Path(session.raw), session.movies, site)
    return build(
        MdcatchConfig(
            raw=session.raw,
            role=role,
            roots=roots,
            name=session.name,
            site=site,
            gain_folders=gain_folders(site),
            network_settle_s=site.defaults.network_settle_s,
            dose_per_fraction_e_A2=site.defaults.dose_per_fraction_e_A2,
            particle_diameter_A=session.particle_diameter_A,
            gain=session.gain,
            overrides=Overrides(
                pixel_size_A=session.pixel_size_A,
                voltage_kV=session.voltage_kV,
                spherical_aberration_mm=session.spherical_aberration_mm,
                dose_e_A2=session.dose_e_A2,
            ),
            default_amplitude_contrast=session.amplitude_contrast,
            poll_s=session.poll_s,
            settle_s=session.settle_s,
            stuck_s=session.stuck_s,
            meta_wait_s=session.metadata_wait_s,
            backlog=session.close_when_idle,
            close_when_idle=session.close_when_idle,
        ),
        Shower(layout),
        mailbox(layout),
    )


if __name__ == "__main__":
    sys.exit(service_main("mdcatch", _build, needs_cluster=False))
