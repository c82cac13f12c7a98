"""Mail through the system's `mail` program, without a shell.

A message is a service to people, never a reason to stop: whatever goes wrong is told in the line
that is returned. Source: schemes.md section 3, "email".
"""

import re
import subprocess
from datetime import datetime

from schemer.actions import SendMail

_SENDER = "RELION"
_TIMEOUT_S = 30.0
# `mail` takes words that begin with "-" as options, and "|program", "/file" or "+file" as places to
# put the message: an address here is letters, digits and a few signs within.
_ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._%=+-]*(@[A-Za-z0-9][A-Za-z0-9.-]*)?")


def send_mail(mail: SendMail, *, now: datetime | None = None) -> str:
    """Send a message and return one line that says how it went.

    Parameters
    ----------
    mail
        Its `to` holds one address, or several separated by blanks or commas.
    now
        Date and time in the first line of the message; None takes the clock's.
    """
    addresses = [word for word in re.split(r"[\s,]+", mail.to) if word]
    bad = [word for word in addresses if not _ADDRESS.fullmatch(word)]
    if bad or not addresses:
        what = f"{bad[0]!r} is no mail address" if bad else "there is no mail address"
        return f"mail {mail.subject!r} not sent: {what}; set the string variable email"
    when = now or datetime.now()  # the people's own time, as RELION writes it
    lines = (line for text in mail.lines for line in text.splitlines() or [""])
    # Some versions of `mail` carry out lines that begin with a tilde, and end at a lone point.
    body = [f" {line}" if line.startswith("~") or line == "." else line for line in lines]
    subject = " ".join(mail.subject.split())
    command = ["mail", "-s", subject, "-r", _SENDER, *addresses]
    text = "\n".join([when.ctime(), *body, ""])
    problem = _run(command, text)
    if problem:
        return f"mail {subject!r} to {', '.join(addresses)} not sent: {problem}"
    return f"mail {subject!r} sent to {', '.join(addresses)}"


def _run(command: list[str], text: str) -> str:
    """Run `mail`; return what went wrong, else an empty text."""
    try:
        done = subprocess.run(
            command,
            input=text.encode(errors="replace"),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        return "there is no `mail` program; install one (Debian: bsd-mailx)"
    except subprocess.TimeoutExpired:
        return f"`mail` did not end within {_TIMEOUT_S:g} s"
    except (OSError, ValueError) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    said = " ".join(done.stderr.decode(errors="replace").split())
    return f"`mail` ended with {done.returncode}: {said[:200] or 'it said nothing'}"
