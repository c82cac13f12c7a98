"""The prep process: `python -m services.prep --project P`."""

import sys

from services.kit.main import service_main
from services.prep.build import build

if __name__ == "__main__":
    sys.exit(service_main("prep", build, needs_cluster=True))
