"""The report of a running session: `python -m services.report --project P`, in the background.

It gets out of the way of the session: the lowest priority, one thread, and a few seconds for new
thumbnails; those that are left out come the next time.
"""

import argparse
import os
import sys
from pathlib import Path

from services.kit.errors import Fatal, Misuse
from services.kit.paths import Layout
from services.kit.process import die_with_parent
from services.report.session import make_report

THUMBNAILS_S = 4.0


def main() -> int:
    """Write the report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.report")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    given = parser.parse_args()
    die_with_parent(given.parent)
    os.nice(19)
    try:
        make_report(Layout(given.project), patience_s=THUMBNAILS_S)
    except (Misuse, Fatal) as error:
        print(error, file=sys.stderr)  # the parent shows it
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
