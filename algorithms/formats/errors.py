"""What an image file can be refused for."""

import os
from typing import Literal

FormatCode = Literal["EMPTY_FILE", "TRUNCATED", "BAD_HEADER", "UNSUPPORTED", "TOO_LARGE"]


class FormatError(ValueError):
    """A file of the field cannot be used.

    Parameters
    ----------
    path
        The file.
    code
        `EMPTY_FILE` and `TRUNCATED`: the writer may still be at work, or died. `BAD_HEADER`: the
        file contradicts itself or its partner. `UNSUPPORTED`: valid, and not read by this version.
        `TOO_LARGE`: beyond the limits that protect the machine.
    detail
        One sentence with the numbers found, the numbers expected and, where there is one, the
        remedy.
    """

    def __init__(self, path: str | os.PathLike[str], code: FormatCode, detail: str):
        super().__init__(path, code, detail)
        self.path = os.fspath(path)
        self.code: FormatCode = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.path}: {self.code}: {self.detail}"
