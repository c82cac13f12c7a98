"""CURVE keys: both sides prove who they are before a byte is exchanged over TCP.

Key files are JSON, secret ones readable by their owner alone from their first byte. On one host
the bus uses ipc sockets in a private folder and needs no keys. Source: reliability.md 2.10.
"""

import os
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import msgspec
import zmq
from zmq.utils import z85

from services.kit.errors import Misuse

DOMAIN = b"coldstream"


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key on disk; `secret` is None in the file that may be given away."""

    name: str
    public: str
    secret: str | None = None

    def raw_public(self) -> bytes:
        """Return the 32 bytes of the public key.

        Raises
        ------
        Misuse
            It is none.
        """
        try:
            raw = z85.decode(self.public)
        except (ValueError, KeyError):
            raw = b""
        if len(raw) != 32:
            raise Misuse(f"{self.public!r} of {self.name} is not a public key: 40 characters Z85")
        return raw


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
            socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
            # Without a gate that answers, nobody is let in.
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
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
    key.raw_public()
    if key.secret is not None and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Misuse(f"{path} can be read by others: chmod 600 {path}")
    return key


class Gate:
    """Lets clients in whose public key is on the list, and nobody else.

    CURVE alone proves that a client has *some* key. libzmq asks the gate (ZAP, RFC 27) about
    every connection to a server socket of `context` before a byte of it is passed on.

    Parameters
    ----------
    context
        Context of the servers; it may have one gate.
    allowed
        Keys of the clients.
    denied
        Called on the gate's thread with the address and public key of a client that was turned
        away.
    """

    def __init__(
        self,
        context: zmq.Context,
        allowed: Iterable[KeyFile],
        denied: Callable[[str, str], None] = lambda address, public: None,
    ):
        self._context, self._denied = context, denied
        self._allowed = {key.raw_public(): key.name for key in allowed}
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        try:
            self._socket.bind("inproc://zeromq.zap.01")
        except zmq.ZMQError as error:
            self._socket.close()
            os.close(self._stop)
            raise Misuse("this process has a gate already") from error
        self._thread = threading.Thread(target=self._run, name="coldstream-gate", daemon=True)
        self._thread.start()

    def guards(self, context: zmq.Context) -> bool:
        """Say whether the gate answers for the servers of a context."""
        return context is self._context and self._thread.is_alive()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._stop, zmq.POLLIN)
        try:
            while self._stop not in dict(poller.poll()):
                self._answer()
        except zmq.ContextTerminated:
            pass
        finally:
            self._socket.close()

    def _answer(self) -> None:
        version, request, _domain, address, _routing_id, mechanism, *keys = (
            self._socket.recv_multipart()
        )
        name = self._allowed.get(keys[0]) if mechanism == b"CURVE" and keys else None
        status = (b"400", b"this key is not known here") if name is None else (b"200", b"OK")
        user = (name or "").encode()
        self._socket.send_multipart([version, request, *status, user, b""])
        if name is None:
            public = z85.encode(keys[0]).decode() if keys else "no key"
            self._denied(address.decode(errors="replace"), public)

    def close(self) -> None:
        """Let nobody in any more; connections that stand are kept."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
