"""A job that a service keeps running: `python -m services.jobs.live FOLDER --parent PID`.

It ends with the service, at once, and gives way to everything else on the machine; started again
it goes on. Exit codes: 0 done, 1 failed, 2 aborted by a person; any other end is not the job's.
"""

import argparse
import os
import sys

from services.jobs.main import carry_out
from services.kit.process import die_with_parent


def main() -> int:
    """Do the job of a folder; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.jobs.live", description=__doc__)
    parser.add_argument("folder", help="job folder below the working directory")
    parser.add_argument("--parent", type=int, required=True, help="end when this process does")
    parser.add_argument("--nice", type=int, default=0, help="how much to give way")
    arguments = parser.parse_args()
    die_with_parent(arguments.parent)
    os.nice(arguments.nice)
    return carry_out(arguments.folder, live=True)


if __name__ == "__main__":
    sys.exit(main())
