"""`python -m algorithms.ranker.trainingset make FOLDER`: make the set, or go on with it."""

import argparse
import sys
from pathlib import Path

from algorithms.ranker.trainingset.make import make, relabel
from algorithms.ranker.trainingset.plan import JOBS, SEED, default_plan, split_text
from algorithms.ranker.trainingset.records import PARTS
from algorithms.ranker.types import RankerError


def main(words: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m algorithms.ranker.trainingset")
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="make the jobs of a plan that are not there")
    making.add_argument("folder", type=Path)
    making.add_argument("--jobs", type=int, default=JOBS, help="of the plan, from the first")
    making.add_argument("--workers", type=int, default=1, help="processes")
    making.add_argument("--part", choices=PARTS[:4], help="only the jobs of this part")
    making.add_argument("--seed", type=int, default=SEED)
    again = commands.add_parser("relabel", help="give a set the labels of the present rule")
    again.add_argument("folder", type=Path)
    commands.add_parser("split", help="tell which families are in which part")
    given = parser.parse_args(words)
    if given.command == "split":
        print(split_text(), end="")
        return 0
    if given.command == "relabel":
        print(f"{relabel(given.folder)} jobs have other labels than before")
        return 0
    plan = default_plan(given.jobs, given.seed)
    wanted = [one for one in plan if given.part in (None, one.part)]
    try:
        _, failed = make(given.folder, wanted, given.workers, lambda line: print(line, flush=True))
    except RankerError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
