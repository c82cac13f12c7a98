"""CURVE keys: both sides prove who they are before a byte is exchanged over TCP.

Key files are JSON, secret ones readable by their owner alone from their first byte. On one host
the bus uses ipc sockets in a private folder and needs no keys. Source: reliability.md 2.10.
"""

import os
import stat
from pathlib import Path

import msgspec
import zmq

from services.kit.errors import Misuse


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key on disk; `secret` is None in the file that may be given away."""

    name: str
    public: str
    secret: str | None = None


class Security(msgspec.Struct, frozen=True):
    """The keys one process uses: its own pair, and the server it trusts when it connects."""

    own: KeyFile
    server_public: str | None = None

    def apply(self, socket: zmq.Socket, *, serve: bool) -> None:
        """Set the socket's keys, before it binds or connects."""
        if self.own.secret is None:
            raise Misuse(f"the key {self.own.name} has no secret part; give the .secret file")
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.own.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.own.secret.encode())
        if serve:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.ZAP_DOMAIN, b"coldstream")
        elif self.server_public is None:
            raise Misuse("connecting over TCP needs the server's public key")
        else:
            socket.setsockopt(zmq.CURVE_SERVERKEY, self.server_public.encode())


def new_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Make `<name>.public` and `<name>.secret` in a folder; never replaces a file.

    Raises
    ------
    Misuse
        A key of that name exists.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    public, secret = (part.decode() for part in zmq.curve_keypair())
    paths = folder / f"{name}.public", folder / f"{name}.secret"
    contents = KeyFile(name, public), KeyFile(name, public, secret)
    for path, content, mode in zip(paths, contents, (0o644, 0o600), strict=True):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            raise Misuse(f"{path} exists: remove it first, or choose another name") from None
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
    return paths


def load(path: Path) -> KeyFile:
    """Return a key; a secret that others can read is refused.

    Raises
    ------
    Misuse
        The file is missing, not a key, or readable by group or others.
    """
    try:
        key = msgspec.json.decode(path.read_bytes(), type=KeyFile)
    except (OSError, msgspec.MsgspecError) as error:
        raise Misuse(f"{path} is not a usable key file: {error}") from error
    if key.secret is not None and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Misuse(f"{path} can be read by others: chmod 600 {path}")
    return key
