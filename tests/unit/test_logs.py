"""Log lines: one per event, parseable, harmless."""

import re

import pytest

from services.kit.logs import Log, format_line, format_value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "yes"),
        (False, "no"),
        (3, "3"),
        (12345.678, "12346"),
        (3.14159, "3.142"),
        (0.000123456, "0.0001235"),
        (-0.5, "-0.5"),
        (float("nan"), "nan"),
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "no"', "\"say 'no'\""),
        ("line\nfeed\tand tab", '"line feed and tab"'),
        (None, "None"),
        ("\x1b[31mred", "?[31mred"),
        ("Tomo_é_µm", "Tomo_é_µm"),
    ],
)
def test_a_value_is_one_word_or_quoted(value, shown):
    assert format_value(value) == shown


def test_a_line_has_time_service_level_kind_and_pairs():
    line = format_line(1_795_169_702.9, "prep", "INFO", "micrograph.ctf", {"movie": "m1", "n": 2})
    assert line == "2026-11-20T10:15:02Z prep INFO micrograph.ctf movie=m1 n=2"
    assert format_line(0.0, "prep", "INFO", "x", {}) == "1970-01-01T00:00:00Z prep INFO x"


def test_lines_go_to_the_screen_and_to_the_file_and_are_appended(tmp_path, capsys):
    file = tmp_path / "prep.log"
    for number in (1, 2):
        log = Log("prep", file)
        log.line("service.started", head=number)
        log.line("service.detail", "DEBUG", head=number)
        log.close()
    lines = file.read_text().splitlines()
    assert capsys.readouterr().out.splitlines() == lines
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ prep INFO service.started head=\d"
    assert len(lines) == 2 and all(re.fullmatch(pattern, line) for line in lines)


def test_the_level_decides_what_is_written(capsys):
    log = Log("prep", level="WARNING")
    for level in ("DEBUG", "INFO", "WARNING", "ERROR"):
        log.line("x", level, at=1)  # a field may be called anything
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == [
        "WARNING",
        "ERROR",
    ]
