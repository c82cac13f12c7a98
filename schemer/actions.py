"""What an operator asks the shell to do to files or by mail; plain data, done by `effects`.

Paths are relative to the project, or absolute; wildcards and `~` are expanded when the effect is
done. Source: schemes.md section 3.
"""

from msgspec import Struct


class TouchFile(Struct, frozen=True, tag=True):
    """Make the file, or cut it to zero length; its folder must be there."""

    path: str


class CopyFile(Struct, frozen=True, tag=True):
    """Copy a file, or all that match, as `cp` does; the folder of the target is made."""

    source: str
    target: str


class MoveFile(Struct, frozen=True, tag=True):
    """Move a file or folder, or all that match, as `mv` does; the folder of the target is made."""

    source: str
    target: str


class DeleteFile(Struct, frozen=True, tag=True):
    """Delete a file, or all that match; folders are left alone."""

    pattern: str


class SendMail(Struct, frozen=True, tag=True):
    """Send a message to the address, or addresses, in `to`."""

    to: str
    subject: str
    lines: tuple[str, ...]


Effect = TouchFile | CopyFile | MoveFile | DeleteFile | SendMail
