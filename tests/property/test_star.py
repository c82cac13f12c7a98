"""Whatever a table holds comes back, and whatever a file holds, reading it ends well."""

import contextlib
import re

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from algorithms.formats import star
from algorithms.formats.star import StarError, Table

VALUES = st.text(
    st.one_of(
        st.sampled_from("ab1_#'\" \t\u00a0\u2028\x1cdata_loop_"), st.characters(codec="utf-8")
    ),
    max_size=12,
)
LABELS = st.from_regex(r"\A[A-Za-z][A-Za-z0-9]{0,10}\Z")


@given(LABELS, st.data())
@settings(max_examples=300)
def test_loops_come_back(label, data):
    width = data.draw(st.integers(1, 4))
    row = st.lists(VALUES, min_size=width, max_size=width)
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    columns = {f"{label}{i}": list(values) for i, values in enumerate(zip(*rows, strict=True))}
    with contextlib.suppress(StarError):  # line ends, NUL, both kinds of quotes: refused
        text = star.dumps({"particles": Table(columns), "after": Table({"a": ["1"]})})
        back = star.loads(text)
        # RELION collapses runs of blanks in a loop, in quotes too.
        expected = {
            name: [re.sub(r"[ \t]+", " ", value) for value in values]
            for name, values in columns.items()
        }
        assert back == {"particles": Table(expected), "after": Table({"a": ["1"]})}


@given(st.dictionaries(LABELS, VALUES, min_size=1, max_size=5))
@settings(max_examples=300)
def test_lists_come_back_exactly(values):
    with contextlib.suppress(StarError):
        table = Table.of(values, loop=False)
        assert star.loads(star.dumps({"x": table})) == {"x": table}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
@example([0.0009999999, 0.001, 99_998.9999999, 100_000.0, -0.0])
def test_numbers_come_back_to_the_digits_written(numbers):
    array = np.array(numbers)
    texts = Table.of({"x": array}).strings("x")
    assert max(map(len, texts)) <= 13
    back = Table({"x": texts}).floats("x")
    np.testing.assert_allclose(back, array, rtol=1e-5, atol=1e-6)


@given(st.lists(st.floats(0, 99_000), min_size=1, max_size=50))
def test_fast_and_plain_formatting_agree(numbers):
    fast = np.array([float(text) for text in Table.of({"x": np.array(numbers)}).strings("x")])
    plain = np.array([float(star.format_float(number)) for number in numbers])
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1.01e-6)


@given(st.text(st.one_of(st.sampled_from("\n\r _#'\"ab1\t"), st.characters()), max_size=200))
@example("data_\nloop_\n_a\n")
def test_any_text_is_read_or_refused(text):
    for source in (text, "data_x\nloop_\n_a\n_b\n" + text):
        with contextlib.suppress(StarError):
            for table in star.loads(source).values():
                assert len({len(values) for values in table.columns.values()}) <= 1
