"""Writes the reference pages that follow from the code: events, refusals, settings.

Run as `python docs/generate.py` after changing one of them; `--check` only compares, exit code 1
when a page is out of date. tests/unit/test_docs.py runs the comparison.
"""

import ast
import sys
import tokenize
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # so that the script documents the checkout it lies in

from services.kit import errors, events, session  # noqa: E402

REFERENCE = ROOT / "docs" / "reference"
KIT = ROOT / "services" / "kit"

# What each code means, and what a person can do about it.
REFUSALS = {
    "SETTLING": ("The files are still growing, or have not been still for long enough.", "Wait."),
    "NO_METADATA": (
        "The movie is complete, its XML has not appeared.",
        "Check that the EPU session folder is copied with its XML files.",
    ),
    "NO_MOVIE": (
        "The XML is there, its movie has not appeared.",
        "Check that the camera's movies are copied into the same folder.",
    ),
    "UNAVAILABLE": (
        "The raw folder cannot be read at the moment.",
        "Check the mount; processing goes on by itself when it is back.",
    ),
    "VANISHED": (
        "The files of an exposure were there and are gone before it could be published.",
        "Put them back; if they were moved to another watched folder they are found there.",
    ),
    "IGNORED": (
        "A person has decided that the exposure is not published.",
        "To let it in again: `mdcatch override PROJECT MOVIE --no-ignore`.",
    ),
    "EMPTY_FILE": ("The file has no bytes.", "Copy it again."),
    "TRUNCATED": (
        "The file ends before its own header or directory says it should.",
        "Copy it again; the movie is looked at again when the file changes.",
    ),
    "TOO_LARGE": (
        "The file's header asks for more than any camera gives.",
        "Open the file with another program; it is most likely damaged.",
    ),
    "BAD_HEADER": (
        "The file's header contradicts itself or its partner.",
        "Open the file with another program; if that succeeds, report it.",
    ),
    "BAD_NAME": (
        "The name holds characters that RELION's files cannot carry safely.",
        "Rename the file: letters, digits, `.`, `_`, `+`, `-`; no leading `.` or `-`.",
    ),
    "XML_DTD": (
        "The XML declares a document type; no EPU file does, and attacks use it.",
        "Find out who wrote the file.",
    ),
    "XML_BROKEN": ("The XML does not parse.", "Copy it again; EPU may have died while writing it."),
    "XML_TOO_LARGE": (
        "The XML is larger, deeper or wider than any metadata file.",
        "Find out who wrote the file.",
    ),
    "MISSING_FIELD": (
        "A value that processing needs is in neither the XML nor the movie's header.",
        "Give the value that the detail names when you start the session.",
    ),
    "OUT_OF_RANGE": (
        "A value cannot be right (not a number, negative, or in other units).",
        "Check the microscope's calibration or the software's version.",
    ),
    "GEOMETRY_MISMATCH": (
        "The movie has another size or pixel than the movies of this session.",
        "Put movies of another camera mode into a session of their own.",
    ),
    "DUPLICATE": (
        "Another movie of the session has the same name or the same content.",
        "Remove one of the two.",
    ),
    "UNSUPPORTED": (
        "A valid file of a format or variant that this version does not read.",
        "Convert it to MRC or TIFF; the detail names the variant.",
    ),
    "TOO_FEW_FRAMES": ("Fewer frames than alignment can use.", "Take exposures with more frames."),
    "GAIN_MISMATCH": (
        "The gain reference does not have the movie's size.",
        "Give the gain reference of this camera mode with `--gain`.",
    ),
    "NOT_FINITE": (
        "The result holds values that are not numbers.",
        "Look at the movie and the gain reference: one of them is broken.",
    ),
    "READ_ERROR": (
        "The file could not be read by a worker, several times.",
        "Check the disk and the mount, then start the session again.",
    ),
    "POISON": (
        "The movie brought the worker down each time it was tried.",
        "Keep the movie and report it: this is a defect of coldstream.",
    ),
    "CTF_RESOLUTION": (
        "The CTF fits less far than the selection asks (6 A unless changed).",
        "None needed; change the threshold of `select_mics` to keep such micrographs.",
    ),
    "REJECTED": (
        "A person has rejected the micrograph.",
        "To take that back: `coldstream micrograph auto NAME --project P`.",
    ),
}

SETTINGS = {
    "name": "name of the session, from the raw folder",
    "raw": "folder that is watched, absolute; read only",
    "movies": "folder of the movies, if they are not below `raw`; read only",
    "gain": "gain reference (MRC or TIFF), multiplied; none if the movies are corrected",
    "particle_diameter_A": "longest diameter of the particle; sets picking and box sizes",
    "settle_s": "how long size and time of a file must be unchanged before it is read",
    "poll_s": "how often growing files are looked at",
    "stuck_s": "after how long an incomplete file that no longer grows is refused",
    "metadata_wait_s": "how long a movie waits for its XML before the wait is reported",
    "pixel_size_A": "pixel of the movies, instead of the XML's",
    "voltage_kV": "acceleration voltage, instead of the XML's",
    "spherical_aberration_mm": "Cs of the microscope",
    "amplitude_contrast": "amplitude contrast (Q0)",
    "dose_e_A2": "dose of a whole exposure, instead of the XML's",
    "workers": "worker processes on this machine",
    "worker_memory": "memory limit per worker; `auto` divides the machine's",
    "scheduler": "address of a running Dask scheduler, instead of own workers",
    "close_when_idle": "end when everything on disk is accounted for (`coldstream process`)",
    "classify": "carry out 2D classification (`--no-classify`)",
    "refine": "make maps of the particles (`--no-refine`)",
    "settings": "options and variables of the Schemes, such as `prep__motioncorr__bin_factor`",
}


def comments(source: str) -> dict[int, str]:
    """Return the trailing comment of each line of a source text."""
    tokens = tokenize.generate_tokens(StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("# ")
        for token in tokens
        if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip()
    }


def field_notes(path: Path) -> dict[str, dict[str, str]]:
    """Return, per class of a module, the comment that stands behind each field."""
    source = path.read_text()
    notes = comments(source)
    return {
        node.name: {
            line.target.id: notes.get(line.lineno, "")
            for line in node.body
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        }
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    }


def type_text(kind: Any) -> str:
    """Return a type of `msgspec.inspect` with its bounds, for people."""
    inspect = msgspec.inspect
    match kind:
        case inspect.UnionType():
            return " or ".join(type_text(one) for one in kind.types)
        case inspect.StrType():
            return "text" + lengths(kind)
        case inspect.IntType():
            return "whole number" + bounds(kind)
        case inspect.FloatType():
            return "number" + bounds(kind)
        case inspect.TupleType():
            return "(" + ", ".join(type_text(one) for one in kind.item_types) + ")"
        case inspect.VarTupleType() | inspect.ListType():
            return "list of " + type_text(kind.item_type)
        case inspect.DictType():
            return f"table of {type_text(kind.key_type)} to {type_text(kind.value_type)}"
        case inspect.StructType():
            return f"the body of {kind.tag}" if kind.tag else kind.cls.__name__
    plain = {"NoneType": "nothing", "BoolType": "yes or no", "BytesType": "bytes"}
    return plain.get(type(kind).__name__, type(kind).__name__)


def lengths(kind: Any) -> str:
    """Return the bounds of a text's length, with a leading comma; nothing when there are none."""
    if not kind.max_length:
        return ""
    least = f"{kind.min_length} to" if kind.min_length else "at most"
    return f", {least} {kind.max_length} characters"


def bounds(kind: Any) -> str:
    """Return the bounds of a number, with a leading comma; nothing when there are none."""
    parts = [
        f"{sign} {value:,.0f}" if float(value).is_integer() else f"{sign} {value:g}"
        for sign, value in (("≥", kind.ge), (">", kind.gt), ("≤", kind.le), ("<", kind.lt))
        if value is not None
    ]
    return ", " + " and ".join(parts) if parts else ""


def default_text(field: Any) -> str:
    """Return a field's default: empty when it must be given."""
    if field.required:
        return ""
    value = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory()
    if value in (None, "", {}, ()):
        return "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"`{value}`"


def events_page() -> Iterator[str]:
    """Yield the lines of events.md."""
    yield "# Events\n"
    yield "This page is written by `docs/generate.py` from `services/kit/events/`.\n"
    yield (
        "Everything that happens is an event: a fact in the past tense, in the journal of the "
        "service that caused it, before anyone else hears of it. Lengths are in ångström (`_A`), "
        "pixels (`_px`) or micrometres (`_um`), doses in electrons per square ångström (`_e_A2`), "
        "times in seconds (`_s`). An unknown kind, an unknown field or a value out of its bounds "
        "is an error, never a guess.\n"
    )
    notes: dict[str, dict[str, str]] = {}
    for path in sorted((KIT / "events").glob("*.py")):
        notes |= field_notes(path)
    yield "| event | meaning |\n|---|---|"
    for body in events.BODIES:
        kind = str(body.__struct_config__.tag)
        yield f"| [{kind}](#{anchor(kind)}) | {summary(body)} |"
    yield ""
    for body in events.BODIES:
        yield f"## {body.__struct_config__.tag}\n"
        yield f"{summary(body)}\n"
        yield from struct_table(body, notes.get(body.__name__, {}))
    yield "## The envelope\n"
    yield "Each body is stored and sent in an envelope.\n"
    yield from struct_table(events.Event, notes.get("Event", {}))


def struct_table(struct: type[msgspec.Struct], notes: dict[str, str]) -> Iterator[str]:
    """Yield a table of a Struct's fields."""
    described = msgspec.inspect.type_info(struct)
    assert isinstance(described, msgspec.inspect.StructType)  # noqa: S101
    yield "| field | type | default | note |\n|---|---|---|---|"
    for field in described.fields:
        kind = "any event body" if field.name == "body" else type_text(field.type)
        default = default_text(field)
        yield f"| `{field.name}` | {kind} | {default} | {notes.get(field.name, '')} |"
    yield ""


def summary(struct: type[msgspec.Struct]) -> str:
    """Return the first paragraph of a docstring on one line."""
    return " ".join((struct.__doc__ or "").split("\n\n")[0].split())


def anchor(title: str) -> str:
    """Return the anchor that Markdown renderers give a heading."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def code_groups() -> dict[str, list[str]]:
    """Return the codes under the comment that heads each group in errors.py."""
    source = (KIT / "errors.py").read_text()
    groups: dict[str, list[str]] = {}
    lines = source.split("class Code", 1)[1].split("\nclass ", 1)[0].splitlines()
    for line in map(str.strip, lines):
        if line.startswith("# "):
            groups[line[2:]] = []
        elif " = " in line and line.split(" = ")[0].isupper():
            groups[list(groups)[-1]].append(line.split(" = ")[0])
    return groups


def refusals_page() -> Iterator[str]:
    """Yield the lines of refusals.md."""
    yield "# Refusal and waiting codes\n"
    yield "This page is written by `docs/generate.py` from `services/kit/errors.py`.\n"
    yield (
        "A movie that cannot be processed is *refused*: set aside with one of these codes and a "
        "sentence that names the file, the value and the remedy. A movie that may still become "
        "processable is *pending*. `coldstream status` counts both, `coldstream why MOVIE` shows "
        "the sentence. One refused movie never stops the others.\n"
    )
    for title, codes in code_groups().items():
        yield f"## {title[0].upper()}{title[1:]}\n"
        yield "| code | meaning | what to do |\n|---|---|---|"
        for code in codes:
            meaning, remedy = REFUSALS[code]
            yield f"| `{code}` | {meaning} | {remedy} |"
        yield ""
    yield (
        "A refused movie whose files change is looked at again by itself. Exit codes of the "
        "commands are in [commands.md](commands.md).\n"
    )


def settings_table() -> Iterator[str]:
    """Yield the table of a session's settings for configuration.md."""
    described = msgspec.inspect.type_info(session.Session)
    assert isinstance(described, msgspec.inspect.StructType)  # noqa: S101
    yield "| setting | type | default | meaning |\n|---|---|---|---|"
    for field in described.fields:
        kind, default = type_text(field.type), default_text(field)
        yield f"| `{field.name}` | {kind} | {default} | {SETTINGS[field.name]} |"


BEGIN, END = "<!-- generated: settings -->", "<!-- end -->"


def pages() -> dict[Path, str]:
    """Return the generated pages with their right content."""
    check_complete()
    configuration = REFERENCE / "configuration.md"
    before, _, rest = configuration.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "\n".join(settings_table())
    return {
        REFERENCE / "events.md": "\n".join(events_page()).rstrip() + "\n",
        REFERENCE / "refusals.md": "\n".join(refusals_page()).rstrip() + "\n",
        configuration: f"{before}{BEGIN}\n\n{table}\n\n{END}{after}",
    }


def check_complete() -> None:
    """Raise ValueError when a code or a setting is without its sentence, or a sentence left over.

    Raises
    ------
    ValueError
        Names what is missing and what is left over.
    """
    known = {
        "REFUSALS": (set(REFUSALS), {code.name for code in errors.Code}),
        "SETTINGS": (set(SETTINGS), set(session.Session.__struct_fields__)),
    }
    for table, (have, need) in known.items():
        if have != need:
            missing, left_over = sorted(need - have), sorted(have - need)
            raise ValueError(f"docs/generate.py, {table}: add {missing}, remove {left_over}")


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them with `--check`; return the exit code."""
    stale = [
        path for path, text in pages().items() if not path.exists() or path.read_text() != text
    ]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run python docs/generate.py")
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages()[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
