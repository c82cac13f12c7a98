"""`python -m services.refine --project P`: the refine service."""

import sys

from services.kit.main import service_main
from services.refine.build import build

if __name__ == "__main__":
    sys.exit(service_main("refine", build, needs_cluster=False))
