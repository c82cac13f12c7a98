"""Text with two bytes for each character: some programs of Windows write it, with a mark before.

Source: XML 1.0, section 4.3.3 and appendix F (detection of character encodings).
"""

import codecs

_MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def as_utf8(data: bytes) -> bytes:
    """Return text as UTF-8; what has no UTF-16 mark is returned as it is.

    Parameters
    ----------
    data
        A file or its beginning; half a character at its end is left out.

    Raises
    ------
    UnicodeError
        What follows the mark is no UTF-16.
    """
    encoding = _MARKS.get(data[:2])
    if encoding is None:
        return data
    return codecs.getincrementaldecoder(encoding)().decode(data[2:]).encode()
