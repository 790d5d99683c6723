"""The files of a Kaldi data directory: their formats, and a reader that collects all errors.

Each file (see `TABLES`) has one entry per line, sorted by bytes as with LC_ALL=C:

    wav.scp          utterance path        one space, then the rest of the line (paths may contain spaces); or
                     utterance command |   whose output is the audio; run only with --allow_pipes
    segments         utterance recording start end      in seconds, end -1: to the end; wav.scp then lists recordings
    utt2spk          utterance speaker     the utterance id begins with the speaker id
    spk2utt          speaker utterance...
    utt2num_samples  utterance count
    feats.scp utt2num_frames               instead of wav.scp and utt2num_samples if the data are vectors
    text             utterance word...
    spk2gender       speaker m|f
    spk2height       speaker centimetres
    spk2dialect      speaker region
    phones words     utterance start_sample end_sample label     several lines per utterance, sorted by start

Errors are strings ``file:line: reason; what to do``.
"""

import contextlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from speechlvm.utils.text import unmarked

SAFE_ID = re.compile(r"(?!-)(?!\.+$)[A-Za-z0-9_.-]+")
ALLOWED = "[A-Za-z0-9_.-], not starting with '-'"
BLANKS = " \t"
FIXER = "run utils/fix_data_dir.sh"


@dataclass(frozen=True)
class FileFormat:
    """Format of the lines of one file.

    Attributes:
        key: "utterance" or "speaker": the first column.
        columns: number of columns including the key, or None for at least two.
        pattern: regular expression of the second column, if there are two.
        meaning: the second column in words.
        intervals: several lines per key: start, end, label.
        shape: the columns in words, if they are not "<key> value".
    """

    key: str
    columns: int | None
    pattern: str = r".*"
    meaning: str = ""
    intervals: bool = False
    shape: str = ""


SAMPLE_NUMBER = re.compile(r"[0-9]{1,15}")
COUNT = {"columns": 2, "pattern": r"[1-9][0-9]{0,14}", "meaning": "a positive number"}
INTERVAL = {"columns": 4, "intervals": True, "shape": "utterance start_sample end_sample label"}
SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,15})?")
TO_THE_END = "-1"
TABLES = {
    "utt2spk": FileFormat(
        "utterance", 2, SAFE_ID.pattern, f"a speaker id made of {ALLOWED}", shape="utterance speaker"
    ),
    "spk2utt": FileFormat("speaker", None),
    "wav.scp": FileFormat("utterance", None, shape="utterance path"),
    "segments": FileFormat("utterance", 4, shape="utterance recording start end"),
    "utt2num_samples": FileFormat("utterance", **COUNT),
    "feats.scp": FileFormat("utterance", None),
    "utt2num_frames": FileFormat("utterance", **COUNT),
    "text": FileFormat("utterance", None),
    "spk2gender": FileFormat("speaker", 2, r"[mf]", "m or f"),
    "spk2height": FileFormat("speaker", 2, r"[1-9][0-9]{1,2}(\.[0-9]+)?", "a height in cm"),
    "spk2dialect": FileFormat("speaker", 2),
    "phones": FileFormat("utterance", **INTERVAL),
    "words": FileFormat("utterance", **INTERVAL),
}


@dataclass(frozen=True)
class Line:
    """One line: its number from 1, its first column, and the rest."""

    number: int
    key: str
    rest: str

    @property
    def text(self) -> str:
        """The line as written."""
        return f"{self.key} {self.rest}"

    @property
    def columns(self) -> list[str]:
        """The columns after the key; Unicode whitespace does not separate words."""
        return re.split(f"[{BLANKS}]+", self.rest)

    def sort_key(self, table: FileFormat) -> tuple:
        """Bytes of the key, then the start of intervals."""
        return self.key.encode(), int(self.columns[0]) if table.intervals else 0


@dataclass
class Contents:
    """The readable lines of one file, and every error in it.

    Attributes:
        path: the file.
        lines: those that could be read.
        errors: messages ``file:line: reason; what to do``.
        repaired: errors that were repaired on reading.
        malformed: errors that must be fixed manually, by line number.
        unreadable: whether some bytes are not text.
    """

    path: Path
    lines: list[Line] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    malformed: dict[Line, str] = field(default_factory=dict)
    unreadable: bool = False

    def error(self, number: int, reason: str) -> str:
        """Records an error in a line."""
        self.errors.append(f"{self.path}:{number}: {reason}")
        return self.errors[-1]

    def repair(self, number: int, reason: str) -> None:
        """Records an error that reading repairs."""
        self.error(number, f"{reason}; {FIXER}")
        self.repaired.append(f"{self.path}:{number}: {reason}")

    def by_key(self) -> dict[str, Line]:
        """First line of each key."""
        result: dict[str, Line] = {}
        for line in self.lines:
            result.setdefault(line.key, line)
        return result


def read_table(path: Path) -> Contents:
    """Reads one file of a data directory, and records the errors in its bytes, its lines and their order."""
    table, contents = TABLES[path.name], Contents(path)
    for number, text in _split_lines(contents):
        stripped = text.strip(BLANKS)
        if not stripped:
            contents.repair(number, "blank line")
            continue
        if text != stripped:
            contents.repair(number, f"{'trailing' if text[-1] in BLANKS else 'leading'} whitespace")
        key, rest = [*re.split(f"[{BLANKS}]+", stripped, maxsplit=1), ""][:2]
        line = Line(number, key, rest)
        contents.lines.append(line)
        reason = _line_error(path.name, table, line)
        if reason:
            contents.malformed[line] = contents.error(number, reason)
        elif path.name == "wav.scp" and stripped != f"{key} {rest}":
            contents.repair(number, "more than one space after the utterance id")
    if not contents.lines and not contents.errors:
        contents.error(1, "empty file; remove it, or prepare the data again")
    _check_order(contents, table)
    return contents


def _split_lines(contents: Contents) -> list[tuple[int, str]]:
    """Numbered lines without line endings; errors of encoding and line endings are recorded."""
    data = contents.path.read_bytes()
    with contextlib.suppress(UnicodeDecodeError):  # text that does not match its mark is found below
        data, encoding = unmarked(data)
        if encoding:
            contents.repair(1, f"{encoding.upper()} byte order mark")
    if b"\0" in data:
        number = data.count(b"\n", 0, data.find(b"\0")) + 1
        contents.error(number, "NUL byte or UTF-16; expected UTF-8 text; convert it with iconv -f UTF-16 -t UTF-8")
        contents.unreadable = True
        return []
    if data and not data.endswith(b"\n"):
        contents.repair(data.count(b"\n") + 1, "no newline at the end of the file")
        data += b"\n"
    result, crlf = [], []
    for number, raw in enumerate(data.split(b"\n")[:-1], 1):
        if raw.endswith(b"\r"):
            crlf.append(number)
            raw = raw[:-1]
        try:
            result.append((number, raw.decode("utf-8")))
        except UnicodeDecodeError as error:
            contents.error(number, f"byte 0x{raw[error.start]:02x} is not UTF-8; convert the file to UTF-8")
            contents.unreadable = True
    if crlf:
        contents.repair(crlf[0], f"CRLF line endings in {len(crlf)} of {number} lines")
    return result


def unsafe_id(name: str) -> str | None:
    """The reason to refuse an utterance or speaker id (ids become part of file names and command lines), or None."""
    if SAFE_ID.fullmatch(name):
        return None
    # letters that look the same, such as composed and decomposed ones, differ only in their code points
    escaped = "" if name.isascii() else f" ({name.encode('ascii', 'backslashreplace').decode()})"
    return f"unsafe id '{name}'{escaped}; allowed are {ALLOWED}; rename it"


def _line_error(name: str, table: FileFormat, line: Line) -> str | None:
    control = re.search(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]", line.text)
    if control:
        return f"control character {control.group()!r}; remove it"
    columns = 1 + len(line.columns) if line.rest else 1
    if columns < 2 or table.columns not in (None, columns):
        shape = table.shape or f"{table.key} {'value' if table.columns == 2 else 'value...'}"
        return f"{columns} column{'s' if columns > 1 else ''}; expected {table.columns or 'at least 2'} ({shape})"
    if reason := unsafe_id(line.key):
        return reason
    if name == "wav.scp":
        return _path_error(line.rest)
    if name == "segments":
        return _excerpt_error(line)
    if table.intervals:
        start, end, _ = line.columns
        if not (SAMPLE_NUMBER.fullmatch(start) and SAMPLE_NUMBER.fullmatch(end)):
            return f"{line.key}: times '{start}' and '{end}'; expected whole sample numbers"
        if int(end) <= int(start):
            return f"{line.key}: ends at {end}, not after its start at {start}"
    elif table.columns == 2 and not re.fullmatch(table.pattern, line.rest):
        return f"'{line.rest}'; expected {table.meaning}"
    return None


def _path_error(path: str) -> str | None:
    if path.startswith("|"):
        return f"'{path}' starts with '|'; a command that outputs audio ends with it; write the path of a file"
    if path.startswith("~"):
        return f"path '{path}' starts with '~', which is not expanded; write the full path"
    return None


def is_pipe(path: str) -> bool:
    """Whether an entry of wav.scp is a command."""
    return path.endswith("|")


def _excerpt_error(line: Line) -> str | None:
    recording, start, end = line.columns
    if unsafe_id(recording):
        return unsafe_id(recording)
    if not SECONDS.fullmatch(start) or not (SECONDS.fullmatch(end) or end == TO_THE_END):
        return f"{line.key}: times '{start}' and '{end}'; expected seconds from 0 (end -1: the recording's end)"
    if end != TO_THE_END and float(end) <= float(start):
        return f"{line.key}: ends at {end} s, not after its start at {start} s; correct the times"
    return None


def _check_order(contents: Contents, table: FileFormat) -> None:
    seen: dict[str, Line] = {}
    previous, is_sorted = None, True
    for line in contents.lines:
        first = seen.setdefault(line.text if table.intervals else line.key, line)
        if first is not line:
            same = line.text == first.text
            kind = "duplicate line" if same else f"duplicate {table.key} with another value"
            remedy = FIXER if same else "remove one of the two"
            contents.error(line.number, f"{kind}: '{line.key}' is also in line {first.number}; {remedy}")
        if line in contents.malformed:
            continue
        if previous and is_sorted and line.sort_key(table) < previous.sort_key(table):
            is_sorted = False
            keys = f"'{line.key}' comes after '{previous.key}'"
            contents.error(line.number, f"not sorted as LC_ALL=C sorts: {keys}; {FIXER}")
        elif previous and contents.path.name == "phones" and _overlap(previous, line):
            contents.error(line.number, f"{line.key}: starts before line {previous.number} ends; correct the times")
        previous = line


def _overlap(first: Line, second: Line) -> bool:
    return second.key == first.key and second.text != first.text and int(second.columns[0]) < int(first.columns[1])
