"""Job options: text as RELION writes it, with limits, and messages that name the remedy."""

import pytest

from services.kit.errors import Misuse
from services.kit.options import Options

JOB = "Schemes/prep/motioncorr"


def options(**values: str) -> Options:
    return Options(JOB, values)


def test_empty_and_absent_mean_the_default():
    assert options(a="").number("a", 1.5) == options().number("a", 1.5) == 1.5
    assert options(a="").whole("a", 7) == options().whole("a", 7) == 7
    assert options(a="").switch("a", True) and not options().switch("a", False)
    assert options(a="").choice("a", 2) == options().choice("a", 2) == 2
    assert options().text("a", "x") == "x" and options(a="").text("a", "x") == ""


def test_values_are_read():
    assert options(a=" 2.5 ").number("a", 0.0) == 2.5
    assert options(a="1e3").whole("a", 0) == 1000
    assert options(a="-1").whole("a", 0) == -1


@pytest.mark.parametrize(
    ("word", "value"), [("Yes", True), ("No", False), ("yes", False), ("true", False), ("1", False)]
)
def test_only_Yes_is_yes_as_in_relion(word, value):
    assert options(a=word).switch("a", True) is value


@pytest.mark.parametrize(
    ("text", "number"), [("No flipping (0)", 0), ("Flip (left to right) (2)", 2), ("3", 3)]
)
def test_a_choice_is_the_number_at_its_end(text, number):
    assert options(a=text).choice("a") == number


@pytest.mark.parametrize(
    ("method", "text", "wanted"),
    [
        ("number", "two", "a number"),
        ("number", "nan", "between 0 and 10"),
        ("number", "inf", "between 0 and 10"),
        ("number", "11", "between 0 and 10"),
        ("number", "-0.1", "between 0 and 10"),
        ("whole", "2.5", "a whole number"),
        ("whole", "11", "between 0 and 10"),
        ("choice", "No flipping", "a choice that ends with its number"),
        ("choice", "No flipping (²)", "a choice that ends with its number"),
    ],
)
def test_what_does_not_fit_names_job_option_value_and_remedy(method, text, wanted):
    limits = () if method == "choice" else (0, 0, 10)
    with pytest.raises(Misuse) as caught:
        getattr(options(bin_factor=text), method)("bin_factor", *limits)
    assert str(caught.value).startswith(f"option bin_factor of {JOB} is {text!r}: it must be ")
    assert wanted in str(caught.value)
