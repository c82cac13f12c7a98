"""`mdcatch parse FILE`: what a metadata or movie file says, with units and sources."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from algorithms.formats.errors import FormatError
from algorithms.formats.movie import structure_of
from mdcatch.disk import Disk
from mdcatch.parsers.epuxml import EpuImage, Kind, classify, parse_image
from mdcatch.parsers.limits import MAX_XML_BYTES
from services.kit.errors import Code, Refused

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Microscope metadata for coldstream."
)

_UNITS = {"A": "A", "A2": "e/A^2", "px": "px", "s": "s", "um": "um", "deg": "degrees", "kV": "kV"}
_UNITS |= {"hz": "Hz", "eV": "eV", "rad": "rad", "mm": "mm"}
_HEAD = 2048
_ERROR = 1


@app.callback()
def _mdcatch() -> None:
    """Microscope metadata for coldstream."""


@app.command()
def parse(
    file: Annotated[Path, typer.Argument(help="EPU image XML, MRC or TIFF movie.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what FILE says. Exit codes: 0 read, 1 refused (one line tells why), 2 wrong usage."""
    try:
        kind, fields, source = _read(file)
    except (Refused, FormatError) as error:
        typer.echo(f"{file.name}: {error.code}: {error.detail}", err=True)
        raise typer.Exit(_ERROR) from None
    except OSError as error:
        typer.echo(f"{file}: {error.strerror}", err=True)
        raise typer.Exit(_ERROR) from None
    if as_json:
        answer = {"file": file.name, "kind": kind, "source": source, **fields}
        typer.echo(msgspec.json.format(msgspec.json.encode(answer)).decode())
    else:
        _show(file.name, kind, fields, source)


def main() -> None:
    """Entry point of the command."""
    app()


def _read(file: Path) -> tuple[str, dict[str, Any], str]:
    """Return kind, fields and source of a file; None stands for unknown."""
    suffix = file.suffix.lower()
    if suffix == ".xml":
        data = Disk(file.absolute().parent).read(file.name, MAX_XML_BYTES + 1)
        kind = classify(file.name, data[:_HEAD])
        return str(kind), _fields(parse_image(data), kind), "xml"
    if suffix in (".mrc", ".mrcs", ".tif", ".tiff", ".eer"):
        structure = structure_of(file)
        kind = "movie" if structure.n_frames > 1 else "image"
        fields = {
            "format": structure.format,
            "width_px": structure.nx,
            "height_px": structure.ny,
            "n_frames": structure.n_frames,
            "data_type": structure.dtype,
            "compression": structure.compression,
            "pixel_size_A": structure.pixel_size_A,
            "size_bytes": file.stat().st_size,
        }
        return kind, fields, "header"
    raise Refused(Code.UNSUPPORTED, "only EPU image XML, MRC and TIFF are read")


def _fields(record: EpuImage, kind: Kind) -> dict[str, Any]:
    """The record's fields, what follows for a movie, and last the keys without a field."""
    fields = msgspec.structs.asdict(record)
    other = fields.pop("other")
    if kind not in (Kind.EXPOSURE, Kind.OTHER):
        return {**fields, "other": other}
    derived = {
        "pixel_size_A": record.pixel_size_A,
        "movie_size_px": record.movie_size_px,
        "n_frames_estimate": record.n_frames_estimate,
        "dose_per_frame_e_A2": record.dose_per_frame_e_A2,
    }
    return {**fields, **derived, "other": other}


def _show(name: str, kind: str, fields: dict[str, Any], source: str) -> None:
    table = Table(title=f"{name}: {kind}", box=box.SIMPLE, title_justify="left")
    for title in ("field", "value", "unit", "source"):
        table.add_column(title, overflow="fold")
    derived = {"pixel_size_A", "movie_size_px", "dose_per_frame_e_A2"} if source == "xml" else set()
    for field, value in fields.items():
        if field == "other":
            continue
        origin = "-" if value is None else "derived" if field in derived else source
        origin = "estimate" if field == "n_frames_estimate" and value is not None else origin
        table.add_row(field, _text(value), _unit(field), origin)
    for key, value in fields.get("other", {}).items():
        table.add_row(key, value, "", source)
    Console(highlight=False).print(table)


def _unit(field: str) -> str:
    """The unit is the end of a field's name."""
    if field.endswith("_e_px"):
        return "e/px"
    return _UNITS.get(field.rpartition("_")[2], "")


def _text(value: object) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(_text, value)) if isinstance(value, tuple) else str(value)
