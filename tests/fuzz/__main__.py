"""Fuzz the parsers: `python -m tests.fuzz [--seconds 600] [--jobs N] [--seed S] [target ...]`.

Every target runs in a process of its own with as much memory as the parser child has, and
hypothesis's own. Exit codes: 0 no finding, 1 a finding (its file is kept), 2 wrong usage.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from tests.fuzz.harness import Tally, run
from tests.fuzz.targets import targets

SECONDS = 600.0
MEMORY_MB = 1024
GRACE_S = 400.0  # hypothesis makes a finding smaller for at most 300 s


def main(arguments: list[str]) -> int:
    """Run targets, each in a process; or with --alone one target in this process."""
    known = {target.name: target for target in targets()}
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", help=f"default: all of {', '.join(known)}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each target")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "fuzz")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := set(options.targets) - set(known):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if options.alone:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MB * 2**20, MEMORY_MB * 2**20))
        target = known[options.targets[0]]
        tally = run(target, options.seconds, options.seed, options.folder)
        sys.stdout.buffer.write(msgspec.json.encode(tally))
        return 0
    names = options.targets or list(known)
    print(f"{options.seconds:g} s for each of {len(names)} targets, seed {options.seed}")
    with ThreadPoolExecutor(options.jobs) as pool:
        tallies = list(pool.map(lambda name: _apart(name, options), names))
    return 1 if any(tally.finding for tally in tallies) else 0


def _apart(name: str, options: argparse.Namespace) -> Tally:
    command = [sys.executable, "-m", "tests.fuzz", name, "--alone", "--seed", str(options.seed)]
    command += ["--seconds", str(options.seconds), "--folder", str(options.folder)]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, timeout=options.seconds + GRACE_S, check=False
        )
        tally = msgspec.json.decode(done.stdout, type=Tally) if done.returncode == 0 else None
        told = f"the process ended with {done.returncode}"
    except subprocess.TimeoutExpired:
        tally, told = None, "it does not end"
    if tally is None:
        tally = Tally(name, finding=f"{told}; seed {options.seed}")
    codes = " ".join(f"{code}={count}" for code, count in sorted(tally.codes.items()))
    print(
        f"{name:12} {tally.examples:9,} files, {tally.records:8,} records, "
        f"slowest {tally.slowest_s:5.3f} s  {codes}"
        + (f"\n{name:12} FINDING {tally.finding}" if tally.finding else ""),
        flush=True,
    )
    return tally


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
