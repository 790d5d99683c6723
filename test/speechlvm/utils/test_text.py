import codecs

import pytest

from speechlvm.utils.errors import UserError
from speechlvm.utils.text import counted, read_lines

LINES = ["0 2200 h#", "é\u2028x", "", "end"]
TEXT = "\n".join(LINES)


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        f"{TEXT}\n".encode(),
        TEXT.replace("\n", "\r\n").encode("utf-8-sig"),
        TEXT.replace("\n", "\r").encode(),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        f"{TEXT}\r\n".encode("utf-16"),
        TEXT.encode("utf-32"),
        "\n".join(f"\ufeff{line}" for line in LINES).encode(),
    ],
    ids=["UTF-8", "newline at the end", "as Notepad", "as old Macs", "UTF-16 BE", "UTF-16 LE", "UTF-32", "joined"],
)
def test_a_text_is_the_same_however_it_is_encoded(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    assert read_lines(tmp_path / "x") == LINES


def test_what_is_no_utf_8_is_latin_1(tmp_path):
    (tmp_path / "x").write_bytes(b"Fran\xe7ois \x85\n")
    assert read_lines(tmp_path / "x") == ["François \x85"]
    (tmp_path / "x").write_bytes(b"")
    assert read_lines(tmp_path / "x") == []


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfea\0b")
    with pytest.raises(UserError, match=r"x: its byte order mark says utf-16.*byte 2 is not \(truncated data\)"):
        read_lines(tmp_path / "x")
    with pytest.raises(UserError, match="none: cannot be read .No such file or directory.; check the path"):
        read_lines(tmp_path / "none")


def test_counts():
    assert [counted(n, "bad files") for n in (0, 1, 2)] == ["0 bad files", "1 bad file", "2 bad files"]
