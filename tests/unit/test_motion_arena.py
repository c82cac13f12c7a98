"""The place of large arrays: nothing overlaps, what is let go is used again."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from algorithms.motion.memory import Arena, arena, large_zeros

PAGE = 4096


@given(st.lists(st.tuples(st.integers(1, 20 * PAGE), st.booleans()), max_size=40))
def test_pieces_keep_what_was_written_until_they_are_let_go(steps):
    place, held = Arena(1 << 24, kept=4 * PAGE), []
    for number, (size, drop) in enumerate(steps):
        if drop and held:
            held.pop(number % len(held))
        piece = place.take(size)
        piece[:] = number % 251
        held.append((piece, number % 251))
        assert all((piece == value).all() for piece, value in held)
    assert place.used_bytes == sum(-(-piece.size // PAGE) * PAGE for piece, _ in held)


def test_the_lowest_place_is_taken_again():
    place = Arena(1 << 24)
    first, second = place.take(PAGE), place.take(3 * PAGE)
    start = first.ctypes.data
    del first
    again, behind = place.take(PAGE), place.take(2 * PAGE)
    assert again.ctypes.data == start
    assert behind.ctypes.data == second.ctypes.data + 3 * PAGE
    with pytest.raises(MemoryError):
        place.take(1 << 24)


def test_an_array_outlives_the_names_of_its_parts():
    whole = large_zeros((600, 1000), torch.float32, torch.device("cpu"))
    part = whole[3:5].numpy()
    del whole
    other = large_zeros((600, 1000), torch.float32, torch.device("cpu")) + 1.0
    assert not part.any()
    assert np.all(other.numpy() == 1.0)
    place = arena()
    assert place is not None
    assert place.used_bytes >= part.nbytes


def test_without_addresses_the_heap_has_to_do():
    code = (
        "import resource, torch; from algorithms.motion import memory;"
        "resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30));"
        "x = memory.large_zeros((1000, 1000), torch.float32, torch.device('cpu'));"
        "print(memory.arena(), float(x.sum()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.split() == ["None", "0.0"], done.stderr
