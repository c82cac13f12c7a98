"""One command line, put together from a job's options in the order in which RELION does it.

RELION writes a line for the shell; here it is a list of arguments, and no shell sees it. What the
shell would do is done: an option that is empty and unquoted leaves no argument, free text is split
into words, and environment variables are put in. Source: schemes.md sections 9 and 16.
"""

import math
import re
import shlex
from collections.abc import Mapping
from ctypes import c_float
from typing import TYPE_CHECKING

from schemer.errors import SchemeError
from schemer.jobs import options as job_options
from schemer.jobs.types import find

if TYPE_CHECKING:
    from schemer.executors import JobRequest

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_SAMPLINGS = ("30", "15", "7.5", "3.7", "1.8", "0.9", "0.5", "0.2", "0.1")  # degrees, HEALPix 1-9


class Job:
    """A job as the lines need it: its folder, and its options as text, number or yes and no."""

    def __init__(self, request: "JobRequest", environ: Mapping[str, str]):
        self.folder = request.process
        self.is_continue = request.is_continue
        self.type = find(request.label).on(environ)
        self.values, others = self.type.complete(request.options)
        self.is_tomo = not find(request.label, tomo=True).options.keys().isdisjoint(others)
        self.environ = environ

    def wrong(self, problem: str) -> SchemeError:
        """Return the error that says what is wrong with the options."""
        return SchemeError(f"{self.folder} ({self.type.label}): {problem}")

    def text(self, option: str) -> str:
        """Return an option as it is written."""
        return self.values[option]

    def need(self, option: str) -> str:
        """Return an option that must not be empty."""
        if not self.values[option]:
            raise self.wrong(f"option {option!r} is empty; give a value")
        return self.values[option]

    def yes(self, option: str) -> bool:
        """Return whether a boolean option is on."""
        return job_options.yes(self.values, option)

    def only_one(self, *options: str) -> str:
        """Return which of these boolean options is on; it must be exactly one."""
        on = [option for option in options if self.yes(option)]
        if len(on) != 1:
            are = ", ".join(on) or "none"
            raise self.wrong(f"set exactly one of {', '.join(options)} to Yes; now on: {are}")
        return on[0]

    def number(self, option: str) -> float:
        """Return an option as a number."""
        try:
            return float(self.values[option])
        except ValueError:
            value = self.values[option]
            raise self.wrong(f"option {option!r}: {value!r} is not a number") from None

    def nr_mpi(self) -> int:
        """Return the number of MPI processes; 1 in a type that has none."""
        return int(self.number("nr_mpi")) if "nr_mpi" in self.values else 1

    def sampling(self, option: str) -> int:
        """Return the HEALPix order of a radio option such as `7.5 degrees`."""
        angle = self.text(option).removesuffix(" degrees")
        if angle not in _SAMPLINGS:
            choices = ", ".join(f"{one} degrees" for one in _SAMPLINGS)
            raise self.wrong(f"option {option!r}: {self.text(option)!r} is not one of {choices}")
        return _SAMPLINGS.index(angle) + 1


class Line:
    """A command line that grows.

    Parameters
    ----------
    job
        Where the options come from.
    program
        Name of the program; empty if words follow that name it.
    mpi
        The program has an MPI form, `<program>_mpi`, used with more than one process.
    """

    def __init__(self, job: Job, program: str = "", *, mpi: bool = False):
        self.job = job
        self.arguments: list[str] = []
        if program:
            self.add(f"{program}_mpi" if mpi and job.nr_mpi() > 1 else program)

    def add(self, *words: str) -> "Line":
        """Add words, each one argument; environment variables are put in."""
        self.arguments += (_expanded(word, self.job) for word in words)
        return self

    def options(self, pairs: str) -> "Line":
        """Add flags with options: `--Box box --ResMin resmin`; an empty option leaves its flag."""
        words = pairs.split()
        for flag, option in zip(words[::2], words[1::2], strict=True):
            value = self.job.text(option)
            self.add(flag, *([value] if value else []))
        return self

    def quoted(self, flag: str, option: str) -> "Line":
        """Add a flag with an option that RELION puts between quotes: empty, it is an argument."""
        return self.add(flag, self.job.text(option))

    def when(self, option: str, words: str) -> "Line":
        """Add words if a boolean option is on."""
        return self.add(*words.split()) if self.job.yes(option) else self

    def given(self, flag: str, option: str) -> "Line":
        """Add a flag with an option unless it is empty."""
        return self.options(f"{flag} {option}") if self.job.text(option) else self

    def positive(self, flag: str, option: str) -> "Line":
        """Add a flag with a number if it is above zero."""
        return self.options(f"{flag} {option}") if self.job.number(option) > 0 else self

    def unfinished(self) -> "Line":
        """Add the flag of a job that goes on: only what is not yet done."""
        return self.add("--only_do_unfinished") if self.job.is_continue else self

    def gpu(self) -> "Line":
        """Add the graphics cards, if one is to be used."""
        return self.quoted("--gpu", "gpu_ids") if self.job.yes("use_gpu") else self

    def words(self, option: str) -> "Line":
        """Add an option's text split into words as a shell does it."""
        text = _expanded(self.job.text(option), self.job)
        try:
            self.arguments += shlex.split(text)
        except ValueError as error:
            raise self.job.wrong(f"option {option!r}: {text!r}: {error}") from None
        return self

    def finish(self) -> list[str]:
        """Return the line; RELION's programs are told the folder of their control files."""
        if "relion_" in " ".join(self.arguments):
            self.add("--pipeline_control", self.job.folder)
        return self.arguments

    def end(self) -> list[list[str]]:
        """Return the line as the job's only one, with the additional arguments."""
        return [self.words("other_args").finish()]


def _expanded(text: str, job: Job) -> str:
    """Return a text with the environment's variables, and `~`, put in.

    Raises
    ------
    SchemeError
        A variable that is not set: the shell would leave out the value and misread the rest.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in job.environ:
            raise job.wrong(
                f"{text!r}: the environment has no variable {name}; set it, or give the value"
            )
        return job.environ[name]

    if text.startswith("~/"):
        text = "$HOME" + text[1:]
    if "$$" in text:
        raise job.wrong(f"{text!r} still names a variable of the Scheme")
    return _VARIABLE.sub(value, text)


def number_text(value: float) -> str:
    """Return a computed number as RELION writes it: what fits into eight columns.

    Six digits from 1 to 999999, one fewer for each decimal below, else an exponent.
    """
    value = c_float(value).value
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    digits = 6 if exponent >= 0 else 4 + exponent
    return f"{value:.{digits}g}" if digits > 0 and exponent <= 5 else f"{value:.1e}"
