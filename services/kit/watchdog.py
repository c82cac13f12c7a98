"""Tells systemd that the loop turns: READY, STATUS and WATCHDOG messages, when it listens.

Pinged from the service's own loop and nowhere else: a ping from another thread proves nothing.
Source: reliability.md section 2.8.
"""

import os
import socket


def notify(**fields: str) -> bool:
    """Send fields (READY="1", STATUS="...", WATCHDOG="1") to systemd; False when not under it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = "\n".join(f"{name}={value}" for name, value in fields.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto(message.encode(), address)
        except OSError:
            return False
    return True
