"""The ranker process: `python -m services.ranker --project P`."""

import sys

from services.kit.main import service_main
from services.ranker.build import build

if __name__ == "__main__":
    sys.exit(service_main("ranker", build, needs_cluster=True))
