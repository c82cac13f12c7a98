"""Compiled loops: kept for the next process, and never needed."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from algorithms import jit


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Compile anew, and again for whoever comes after."""
    kept = jit.compiled
    jit.compiled.cache_clear()
    yield
    kept.cache_clear()


def add(a, b):
    return a + b


def test_none_where_numba_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert jit.compiled(add) is None


def test_without_a_folder_for_the_code_it_is_compiled_all_the_same(monkeypatch):
    numba = pytest.importorskip("numba")
    njit = numba.njit

    def nowhere(*functions, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*functions, **options)

    monkeypatch.setattr(numba, "njit", nowhere)
    made = jit.compiled(add)
    assert made is not None and made is not add
    assert made(2, 3) == 5


def test_the_code_is_kept_where_the_site_says(tmp_path):
    pytest.importorskip("numba")
    script = (
        "import numpy as np\n"
        "from algorithms.formats import eerdecode, eer\n"
        "streams = eerdecode.Streams(np.zeros(3, np.uint64), np.array([0, 3]), np.array([8]))\n"
        "grid = eerdecode.Grid(2, 2, eer.BITS_7, 0)\n"
        "eerdecode.count_electrons(streams, grid, np.zeros((2, 2), np.uint8))\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    times = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script], env=environment, check=True)
        [kept] = tmp_path.rglob("*.nbc")
        times.append(kept.stat().st_mtime_ns)
    assert times[0] == times[1], "the second process compiled it again"
