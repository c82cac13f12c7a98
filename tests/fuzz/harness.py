"""One fuzz target: a parser, files to begin with, and what must hold whatever they turn into."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings

from mdcatch.parsers import Record
from mdcatch.parsers.fields import FIELDS
from mdcatch.parsers.record import checked
from services.kit.errors import Code, Refused
from tests.fuzz.mutate import Change, changed, steps

ROUND = 100  # examples of one call of hypothesis
SLOWEST_S = 2.0  # one file may take; the child's limit is 10 s
MAX_DETAIL = 2000


class Target(NamedTuple):
    """A parser of bytes."""

    name: str
    parse: Callable[[bytes], Record]
    seeds: Sequence[bytes]


class Tally(msgspec.Struct):
    """What a run saw."""

    target: str
    examples: int = 0
    records: int = 0
    codes: dict[str, int] = {}
    slowest_s: float = 0.0
    seconds: float = 0.0
    finding: str = ""  # what went wrong, and where the file is


class Wrong(AssertionError):
    """The parser did what it must not."""


def check(target: Target, data: bytes, tally: Tally) -> None:
    """Parse; raise whatever is neither a whole record nor a refusal."""
    begun = time.process_time()  # other work on the machine does not count
    try:
        record = target.parse(data)
    except Refused as refused:
        _check_refusal(refused)
        tally.codes[refused.code] = tally.codes.get(refused.code, 0) + 1
    else:
        check_record(record)
        tally.records += 1
    took = time.process_time() - begun
    tally.examples += 1
    tally.slowest_s = max(tally.slowest_s, took)
    if took > SLOWEST_S:
        raise Wrong(f"{took:.1f} s for {len(data)} bytes")


def check_record(record: Record) -> None:
    """Raise `Wrong` unless every field is of its kind, in its bounds, and can be sent."""
    for key, field in record.fields.items():
        if key not in FIELDS:
            raise Wrong(f"no field is called {key!r}")
        if checked(key, field.value) != field.value:
            raise Wrong(f"{key} is {field.value!r}")
    for number in _numbers([[f.value for f in record.fields.values()], record.sections]):
        if not math.isfinite(number):
            raise Wrong(f"a number is {number}")
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=Record)
    if sent.as_json().keys() != record.as_json().keys():
        raise Wrong("a record does not survive being sent")
    msgspec.json.encode(record.as_json())


def _check_refusal(refused: Refused) -> None:
    if refused.code not in Code or not 0 < len(refused.detail) <= MAX_DETAIL:
        raise Wrong(f"refusal {refused.code!r} with {refused.detail[:200]!r}")
    refused.detail.encode()  # it is printed and stored


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        yield from _numbers(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _numbers(one)


def run(target: Target, seconds: float, first_seed: int, folder: Path) -> Tally:
    """Fuzz a parser for some time.

    Parameters
    ----------
    target
        What is fuzzed.
    seconds
        Time budget; a finding is made smaller beyond it.
    first_seed
        Of the first round; the same seed gives the same files.
    folder
        Where the file of a finding is kept.
    """
    tally = Tally(target.name)
    begun = time.monotonic()
    number = 0
    while not tally.finding and time.monotonic() < begun + seconds:
        _round(target, first_seed + number, begun + seconds, tally, folder)
        number += 1
    tally.seconds = time.monotonic() - begun
    return tally


def _round(target: Target, number: int, until: float, tally: Tally, folder: Path) -> None:
    worst: list[bytes] = []  # the file of the last failure: the smallest, once hypothesis is done

    @settings(
        max_examples=ROUND,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
    )
    @seed(number)
    @given(changed(target.seeds))
    def one(case: tuple[bytes, list[Change]]) -> None:
        for data in steps(*case):
            if not worst and time.monotonic() > until:
                return
            try:
                check(target, data, tally)
            except BaseException:
                worst.append(data)
                raise

    try:
        one()
    except Exception as error:  # noqa: BLE001 - whatever a parser raises is what is looked for
        data = worst[-1] if worst else b""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{target.name}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        tally.finding = f"{type(error).__name__}: {str(error)[:300]} (round {number}, {path})"
