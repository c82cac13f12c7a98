"""What comes from a terminal's keyboard, as names of keys and as characters. Pure."""

import codecs

_SEQUENCES = {
    "[A": "up", "[B": "down", "[C": "right", "[D": "left",
    "OA": "up", "OB": "down", "OC": "right", "OD": "left",
    "[H": "home", "[F": "end", "OH": "home", "OF": "end",
    "[1~": "home", "[4~": "end", "[7~": "home", "[8~": "end",
    "[3~": "delete", "[5~": "pageup", "[6~": "pagedown", "[Z": "backtab",
}  # fmt: skip
_CONTROLS = {"\t": "tab", "\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace"}
_ERASE_ALL = "\x15"  # Ctrl-U


class Decoder:
    """Makes keys of bytes as they arrive; what is incomplete waits for the rest."""

    def __init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._pending = ""

    @property
    def is_pending(self) -> bool:
        """Return whether an escape has come of which it is not known what it begins."""
        return bool(self._pending)

    def feed(self, data: bytes) -> list[str]:
        """Return the keys in new bytes: a character, or a name such as `up`, `enter`, `escape`."""
        self._pending += self._text.decode(data)
        keys = []
        while self._pending:
            if self._pending[0] != "\x1b":
                keys.append(_plain(self._pending[0]))
                self._pending = self._pending[1:]
                continue
            length = _sequence_length(self._pending)
            if length == 0:
                break
            keys.append(_SEQUENCES.get(self._pending[1:length], "" if length > 1 else "escape"))
            self._pending = self._pending[length:]
        return [key for key in keys if key]

    def flush(self) -> list[str]:
        """Return `escape` if an escape stands alone: call it when nothing follows for a moment."""
        had, self._pending = self._pending, ""
        return ["escape"] if had else []


def _plain(character: str) -> str:
    if character in _CONTROLS:
        return _CONTROLS[character]
    if character == _ERASE_ALL:
        return "erase"
    return character if character.isprintable() else ""


def _sequence_length(text: str) -> int:
    """Return the length of the escape sequence at the beginning, 0 while it is incomplete."""
    if len(text) == 1:
        return 0
    if text[1] == "O":
        return 3 if len(text) > 2 else 0
    if text[1] != "[":
        return 1  # an escape, and then something else
    end = next((at for at in range(2, len(text)) if "@" <= text[at] <= "~"), None)
    return 0 if end is None else end + 1
