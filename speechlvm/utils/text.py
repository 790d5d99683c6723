"""Reading text files from any editor and operating system, and counts in messages."""

import codecs
from pathlib import Path

from speechlvm.utils.errors import UserError

# UTF-32's mark begins with UTF-16's, so it comes first
MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def unmarked(data: bytes) -> tuple[bytes, str]:
    """Convert text to UTF-8 by its byte order mark.

    Returns:
        The text in UTF-8 without its mark, and the encoding that the mark named; without a mark, `data` and "".

    Raises:
        UnicodeDecodeError: the text is not in the encoding of its mark.
    """
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding).encode(), encoding
    return data, ""


def read_text(path: Path) -> str:
    r"""Text of a file, with "\n" as line ending: decoded by its byte order mark, as UTF-8, or else as Latin-1.

    Marks further on, as in files that were joined, are dropped, too.

    Raises:
        UserError: it cannot be read.
    """
    try:
        data, _ = unmarked(Path(path).read_bytes())
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: its byte order mark says {error.encoding}, but byte {error.start} is not ({error.reason}); "
            "copy it again, or save it as UTF-8"
        ) from None
    except OSError as error:
        remedy = "check the path" if isinstance(error, FileNotFoundError) else "check its permissions"
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, read by `read_text`; Unicode separators other than line endings do not end lines."""
    text = read_text(path)
    return text.removesuffix("\n").split("\n") if text else []


def counted(number: int, things: str) -> str:
    """A number and what it counts: "2 speakers", "1 speaker".

    Args:
        number: the number.
        things: their plural, with an s.
    """
    return f"{number} {things.removesuffix('s') if number == 1 else things}"
