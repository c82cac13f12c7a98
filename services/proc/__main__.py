"""The proc process: `python -m services.proc --project P`."""

import sys

from services.kit.main import service_main
from services.proc.build import build

if __name__ == "__main__":
    sys.exit(service_main("proc", build, needs_cluster=True))
