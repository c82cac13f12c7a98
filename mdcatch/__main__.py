"""The mdcatch process: `python -m mdcatch --project P`."""

import sys

from mdcatch.config import MdcatchConfig, Overrides
from mdcatch.daemon import build
from mdcatch.service import Mdcatch
from mdcatch.source import EpuSource
from services.kit.main import service_main
from services.kit.paths import Layout
from services.kit.session import Session


def _build(layout: Layout, session: Session) -> tuple[Mdcatch, EpuSource]:
    """Return the daemon of a project."""
    return build(
        MdcatchConfig(
            raw=session.raw,
            name=session.name,
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
        )
    )


if __name__ == "__main__":
    sys.exit(service_main("mdcatch", _build, needs_cluster=False))
