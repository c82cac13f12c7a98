"""What goes wrong in a simulated session: which exposures, and how their files are spoilt.

Source: simulation.md section 7, acquisition.md section 2.9.
"""

from dataclasses import dataclass, fields

import numpy as np

Rule = tuple[int, ...] | float
"""The exposures (counted from 0) that fail, or the probability that one does."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Which exposures fail in which way; an exposure has one fault at most, the first that hits."""

    truncated: Rule = ()
    """The movie ends in the middle and never grows again."""
    zero_byte: Rule = ()
    """The movie exists and is empty."""
    wrong_size: Rule = ()
    """The movie has half the width and height that its XML states."""
    xml_only: Rule = ()
    """The movie never comes."""
    movie_only: Rule = ()
    """The XML never comes."""
    doctype_xml: Rule = ()
    """The XML carries a document type with an external entity."""
    unreadable_xml: Rule = ()
    """The XML is cut and filled with noise."""

    def __post_init__(self) -> None:
        for kind in FAULTS:
            rule = getattr(self, kind)
            if isinstance(rule, tuple):
                good = all(type(index) is int and index >= 0 for index in rule)
            else:
                good = isinstance(rule, float | int) and 0.0 <= rule <= 1.0
            if not good:
                raise ValueError(
                    f"fault {kind} = {rule!r}: give a list of exposures counted from 0, "
                    "or a probability between 0 and 1"
                )


FAULTS = tuple(field.name for field in fields(Faults))

# What is left of a truncated movie, and of an unreadable XML.
_TRUNCATED_SHARE = 0.6
_DOCTYPE = '<!DOCTYPE MicroscopeImage [<!ENTITY site SYSTEM "file:///etc/hostname">]>'


def fault_of(faults: Faults, index: int, rng: np.random.Generator) -> str | None:
    """Name the fault of one exposure, or None; `rng` must belong to that exposure alone."""
    draws = rng.random(len(FAULTS))
    for kind, draw in zip(FAULTS, draws, strict=True):
        rule = getattr(faults, kind)
        if index in rule if isinstance(rule, tuple) else draw < rule:
            return kind
    return None


def spoil_movie(fault: str | None, movie: bytes) -> bytes | None:
    """The bytes that reach the disk in place of `movie`; None = no file at all."""
    if fault == "truncated":
        return movie[: int(len(movie) * _TRUNCATED_SHARE)]
    if fault == "zero_byte":
        return b""
    return None if fault == "xml_only" else movie


def spoil_xml(fault: str | None, xml: str) -> bytes | None:
    """The bytes that reach the disk in place of `xml`; None = no file at all."""
    if fault == "movie_only":
        return None
    if fault == "doctype_xml":
        root = xml.index("<MicroscopeImage")
        return (xml[:root] + _DOCTYPE + "\n" + xml[root:]).encode()
    if fault == "unreadable_xml":
        content = xml.encode()
        return content[: len(content) // 2] + b"\x00\xff\xfe<<&" * 40
    return xml.encode()
