"""Generated data directories, damaged in more than twenty ways: valid if and only if an independent reference says so.

The reference below knows only the format (`speechlvm.data.kaldi.tables`): patterns of whole files, and sets. What the
fixer does to a directory is valid and final, or nothing at all.
"""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechlvm.data.audio import write_wav
from speechlvm.data.kaldi.directory import load_data_dir
from speechlvm.data.kaldi.fix import fix
from speechlvm.data.kaldi.matrices import write_vectors
from speechlvm.data.kaldi.validate import validate
from speechlvm.utils.errors import UserError

RATE_HZ = 100
NAMES = ("a_1", "a_2", "a_3", "b_1", "b_2", "c-d_1")
LENGTHS = dict(zip(NAMES, (50, 51, 52, 60, 61, 70), strict=True))

# --- Directories that are valid ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Audio files and an archive of vectors that all directories are about; a place to write directories."""
    root = tmp_path_factory.mktemp("some where")
    for name, length in LENGTHS.items():
        write_wav(root / f"{name}.wav", np.arange(length, dtype=np.int16), RATE_HZ)
    write_wav(root / "rec.wav", np.arange(1000, dtype=np.int16), RATE_HZ)
    write_vectors(root, "all", ((name, np.ones((length, 2), np.float32)) for name, length in LENGTHS.items()))
    return root


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def _lines(pairs) -> bytes:
    return "".join(f"{line}\n" for line in pairs).encode()


@st.composite
def valid_directories(draw, root: Path, kind: str) -> dict[str, bytes]:
    """Contents by file name."""
    names = sorted(draw(st.sets(st.sampled_from(NAMES), min_size=1, max_size=4)))
    speakers = sorted({name.rpartition("_")[0] for name in names})
    of = {speaker: [name for name in names if name.rpartition("_")[0] == speaker] for speaker in speakers}
    files = {
        "utt2spk": _lines(f"{name} {name.rpartition('_')[0]}" for name in names),
        "spk2utt": _lines(f"{speaker} {' '.join(of[speaker])}" for speaker in speakers),
    }
    lengths = dict(LENGTHS)
    if kind == "vectors":
        offsets = _places(root)
        files["feats.scp"] = _lines(f"{name} {offsets[name]}" for name in names)
        files["utt2num_frames"] = _lines(f"{name} {LENGTHS[name]}" for name in names)
        files["channels"] = b"x real\ny real\n"
        if draw(st.booleans()):
            files["rate_hz"] = b"50.0\n"
    elif kind == "segments":
        starts = {name: draw(st.integers(0, 500)) for name in names}
        ends = {name: draw(st.one_of(st.none(), st.integers(starts[name] + 1, 1000))) for name in names}
        lengths = {name: (ends[name] or 1000) - starts[name] for name in names}
        second = {name: "-1" if end is None else f"{end / 100:.2f}" for name, end in ends.items()}
        files["segments"] = _lines(f"{name} rec {starts[name] / 100:.2f} {second[name]}" for name in names)
        files["wav.scp"] = _lines([f"rec {root}/rec.wav"])
    else:
        files["wav.scp"] = _lines(f"{name} {root}/{name}.wav" for name in names)
    if kind != "vectors":
        files["utt2num_samples"] = _lines(f"{name} {lengths[name]}" for name in names)
    for name in draw(st.sets(st.sampled_from(["text", "spk2gender", "spk2height", "phones", "words"]))):
        some = sorted(draw(st.sets(st.sampled_from(names), min_size=1)))
        if name == "text":
            files[name] = _lines(f"{key} {draw(st.sampled_from(['hello', 'é à', 'a  b']))}" for key in some)
        elif name == "spk2gender":
            files[name] = _lines(f"{speaker} {draw(st.sampled_from('mf'))}" for speaker in speakers)
        elif name == "spk2height":
            files[name] = _lines(f"{speaker} 17{number}.5" for number, speaker in enumerate(speakers))
        else:
            long = [key for key in some if lengths[key] > 8]
            both = [f"{key} {start}" for key in long for start in ("0 3 h#", "3 7 ax")]
            if both:
                files[name] = _lines(both)
    return files


def _places(root: Path) -> dict[str, str]:
    data = (root / "all.ark").read_bytes()
    return {name: f"{root}/all.ark:{data.index(name.encode() + b' ') + len(name) + 1}" for name in NAMES}


# --- Damage -----------------------------------------------------------------------------------------------------------

UNSAFE = (
    "$(touch canary)",
    "`id`",
    "a;b",
    "-a_1",
    "..",
    "../a",
    "a/1",
    "a|b",
    "a*",
    "\u00e9",
    "e\u0301",
    "",
    "\u0430_1",
)
STRANGE = ("\x00", "\x0b", "\x1f", "\x7f", "\x85", "\u2028", "\xa0", "\ufeff", "\r", "\t", "\u3000")
NUMBERS = ("0", "-1", "1.5", "1e3", "9" * 16, "9" * 5000, "\u0663", "007", "+5", "nan", "49", "1000")
PATHS = ("/dev/null/x.wav", "~/a.wav", "cat a.wav |", "| cat", "/", "/dev/null", "a_1.wav", "x.ark", "x.ark:5", "x:-1")


def _line(edit):
    """Damage to one line."""

    def change(lines: list[bytes], number: int) -> list[bytes]:
        at = number % len(lines)
        return [*lines[:at], *edit(lines[at]), *lines[at + 1 :]]

    return change


def _column(place: int, choices):
    """Damage to a column of a line: another value."""

    def change(lines: list[bytes], number: int) -> list[bytes]:
        at = number % len(lines)
        columns = lines[at].rstrip(b"\n").split(b" ")
        columns[place % len(columns)] = choices[number % len(choices)].encode()
        return [*lines[:at], b" ".join(columns) + b"\n", *lines[at + 1 :]]

    return change


def _strange(lines: list[bytes], number: int) -> list[bytes]:
    at, mark = number % len(lines), STRANGE[number % len(STRANGE)].encode()
    where = number // 3 % max(1, len(lines[at]))
    return [*lines[:at], lines[at][:where] + mark + lines[at][where:], *lines[at + 1 :]]


def _swap(lines: list[bytes], number: int) -> list[bytes]:
    a, b = number % len(lines), (number + 1) % len(lines)
    lines = list(lines)
    (key_a, _, rest_a), (key_b, _, rest_b) = lines[a].partition(b" "), lines[b].partition(b" ")
    lines[a], lines[b] = key_a + b" " + rest_b, key_b + b" " + rest_a
    return lines


DAMAGE = {
    "CRLF": lambda lines, n: [line.replace(b"\n", b"\r\n") for line in lines],
    "CRLF in one line": _line(lambda line: [line.replace(b"\n", b"\r\n")]),
    "byte order mark": lambda lines, n: [b"\xef\xbb\xbf" + lines[0], *lines[1:]],
    "UTF-16": lambda lines, n: ["".join(x.decode("utf-8", "replace") for x in lines).encode("utf-16")],
    "latin-1": _line(lambda line: [line[:-1] + b"\xe9\n"]),
    "blank line": _line(lambda line: [line, b"\n"]),
    "line of blanks": _line(lambda line: [b" \t\n", line]),
    "blanks at the end": _line(lambda line: [line.rstrip(b"\n") + b" \t\n"]),
    "blanks at the start": _line(lambda line: [b" " + line]),
    "two blanks": _line(lambda line: [line.replace(b" ", b"  ", 1)]),
    "a tab": _line(lambda line: [line.replace(b" ", b"\t", 1)]),
    "no newline at the end": lambda lines, n: [*lines[:-1], lines[-1].rstrip(b"\n")],
    "reversed": lambda lines, n: lines[::-1],
    "rotated": lambda lines, n: lines[n % len(lines) :] + lines[: n % len(lines)],
    "line twice": _line(lambda line: [line, line]),
    "line again at the end": lambda lines, n: [*lines, lines[n % len(lines)]],
    "two values": _line(lambda line: [line, line.rstrip(b"\n") + b"0\n"]),
    "line removed": _line(lambda line: []),
    "empty file": lambda lines, n: [],
    "column more": _line(lambda line: [line.rstrip(b"\n") + b" 7\n"]),
    "last word twice": _line(lambda line: [line.rstrip(b"\n") + b" " + line.rpartition(b" ")[2]]),
    "column less": _line(lambda line: [line.rpartition(b" ")[0] + b"\n"]),
    "other id": _column(0, UNSAFE),
    "id of another": _column(0, NAMES),
    "other second column": _column(1, (*UNSAFE, *NUMBERS, *PATHS)),
    "other last column": _column(-1, (*NAMES, *NUMBERS, *PATHS, "a", "b")),
    "other third column": _column(2, (*NUMBERS, "-1")),
    "strange character": _strange,
    "values swapped": _swap,
    "cut": lambda lines, n: [b"".join(lines)[: n * 7 % max(1, len(b"".join(lines)))]],
    "bit flipped": lambda lines, n: [
        bytes(b ^ (1 << n % 8) if i == n * 5 else b for i, b in enumerate(b"".join(lines)))
    ],
}


@st.composite
def directories(draw, root: Path, kind: str) -> dict[str, bytes]:
    """Contents by file name, of which some are damaged."""
    files = draw(valid_directories(root, kind))
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(files))) if files else "text"
        if draw(st.integers(0, 19)) == 0:
            files.pop(name, None)
        elif files.get(name):
            lines = files[name].splitlines(keepends=True)
            files[name] = b"".join(DAMAGE[draw(st.sampled_from(sorted(DAMAGE)))](lines, draw(st.integers(0, 60))))
    return files


# --- The reference ----------------------------------------------------------------------------------------------------

ID = r"(?!-)(?!\.+(?:\s|$))[A-Za-z0-9_.-]+"
GAP, WORD = "[ \t]+", "[^ \t\n]+"
COUNT = r"[1-9][0-9]{0,14}"
TIMES = r"[0-9]{1,15}"
SECONDS = r"[0-9]{1,9}(?:\.[0-9]{1,15})?"
WORDS = f"{WORD}(?:{GAP}{WORD})*"
FORMATS = {
    "utt2spk": f"({ID}){GAP}({ID})",
    "spk2utt": f"({ID}){GAP}({WORDS})",
    "wav.scp": rf"({ID}) (?![~|])({WORDS})(?<!\|)",
    "segments": f"({ID}){GAP}(({ID}){GAP}({SECONDS}){GAP}({SECONDS}|-1))",
    "utt2num_samples": f"({ID}){GAP}({COUNT})",
    "feats.scp": f"({ID}){GAP}({WORDS})",
    "utt2num_frames": f"({ID}){GAP}({COUNT})",
    "text": f"({ID}){GAP}({WORDS})",
    "spk2gender": f"({ID}){GAP}([mf])",
    "spk2height": rf"({ID}){GAP}([1-9][0-9]{{1,2}}(?:\.[0-9]+)?)",
    "spk2dialect": f"({ID}){GAP}({WORD})",
    "phones": f"({ID}){GAP}(({TIMES}){GAP}({TIMES}){GAP}{WORD})",
    "words": f"({ID}){GAP}(({TIMES}){GAP}({TIMES}){GAP}{WORD})",
}
CONTROL = set(map(chr, [*range(9), *range(11, 32), 127, 0x85, 0x2028, 0x2029]))


def reference(files: dict[str, bytes], root: Path) -> bool:
    """Whether a directory with these files is valid."""
    rows = {}
    for name, content in files.items():
        if name in FORMATS:
            rows[name] = _rows(name, content)
            if rows[name] is None:
                return False
    vectors = "feats.scp" in files and "wav.scp" not in files
    pair = ("feats.scp", "utt2num_frames") if vectors else ("wav.scp", "utt2num_samples")
    if not {"utt2spk", "spk2utt", *pair} <= set(rows):
        return False
    tables = {name: {row[0]: row[1] for row in of} for name, of in rows.items()}
    utt2spk, speakers = tables["utt2spk"], set(tables["utt2spk"].values())
    listed = [(u, speaker) for speaker, us in tables["spk2utt"].items() for u in re.split(GAP, us)]
    if sorted(listed) != sorted(utt2spk.items()):
        return False
    if not all(utterance.startswith(speaker) for utterance, speaker in utt2spk.items()):
        return False
    segments = {row[0]: row[2:] for row in rows.get("segments", [])}
    for name, table in tables.items():
        if name == "wav.scp" and segments:
            known, exact = {recording for recording, *_ in segments.values()}, True
        else:
            known, exact = (speakers if name.startswith("spk") else set(utt2spk)), name in (*pair, "segments")
        if not set(table) <= known or (exact and set(table) != known):
            return False
    lengths = {name: int(count) for name, count in tables[pair[1]].items()}
    for name in ("phones", "words"):
        if any(int(row[3]) > lengths.get(row[0], int(row[3])) for row in rows.get(name, []) if not vectors):
            return False
    if vectors:
        return _vectors_are_there(files, tables, root)
    paths = [os.path.normpath(path) for path in tables["wav.scp"].values()]
    there = {f"{root}/{name}.wav": length for name, length in (*LENGTHS.items(), ("rec", 1000))}
    if len(set(paths)) < len(paths) or not set(paths) <= set(there):
        return False
    if not segments:
        return all(lengths[name] == there[os.path.normpath(path)] for name, path in tables["wav.scp"].items())
    for name, (recording, start, end) in segments.items():
        total = there[os.path.normpath(tables["wav.scp"][recording])]
        first, last = round(float(start) * RATE_HZ), total if end == "-1" else round(float(end) * RATE_HZ)
        if not first < last <= total or last - first != lengths[name]:
            return False
    return True


def _vectors_are_there(files, tables, root) -> bool:
    try:
        channels, rate = (_any_text(files.get(name, empty)) for name, empty in (("channels", b""), ("rate_hz", b"1")))
    except UnicodeDecodeError:
        return False
    if not re.fullmatch(r"([^ \n]+ (real|binary)\n)*[^ \n]+ (real|binary)\n?", channels):
        return False
    names = [line.split(" ")[0] for line in channels.removesuffix("\n").split("\n")]
    if not all(map(str.isprintable, names)):
        return False
    try:
        positive = 0 < float(rate) < float("inf")
    except ValueError:
        positive = False
    places = _places(root)
    return (
        len(set(names)) == len(names)
        and positive
        and all(places.get(name) == place for name, place in tables["feats.scp"].items())
        and all(LENGTHS[name] == int(count) for name, count in tables["utt2num_frames"].items())
    )


def _any_text(data: bytes) -> str:
    """Of the files that no other toolkit reads, in whatever encoding."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
    return re.sub("\r\n?", "\n", text)


def _rows(name: str, content: bytes) -> list[tuple] | None:
    """Key, rest and further columns of each line of a file; None if it is not well-formed and sorted."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if text.startswith("\ufeff") or not text.endswith("\n") or CONTROL & set(text):
        return None
    rows = []
    for line in text[:-1].split("\n"):
        match = re.fullmatch(FORMATS[name], line)
        if match is None:
            return None
        rows.append(match.groups())
    if name in ("phones", "words"):
        keys = [(row[0].encode(), int(row[2])) for row in rows]
        identities = [" ".join(row[:2]) for row in rows]
        in_time = all(int(row[2]) < int(row[3]) for row in rows)
        apart = name == "words" or all(
            a[0] != b[0] or int(a[3]) <= int(b[2]) for a, b in zip(rows, rows[1:], strict=False)
        )
        return rows if keys == sorted(keys) and len(set(identities)) == len(rows) and in_time and apart else None
    if name == "segments" and not all(row[4] == "-1" or float(row[3]) < float(row[4]) for row in rows):
        return None
    keys = [row[0].encode() for row in rows]
    return rows if keys == sorted(set(keys)) else None


# --- The properties ---------------------------------------------------------------------------------------------------


def _write(files: dict[str, bytes], directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)


def _read(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def _is_well_formed(error: str, directory: Path) -> bool:
    """One line that begins with the file, and its number where it is about one."""
    return (
        "\n" not in error and re.match(rf"{re.escape(str(directory))}(/[a-z0-9_.]+(:[0-9]+)?)?: \S", error) is not None
    )


@pytest.mark.parametrize("kind", ["audio", "segments", "vectors"])
def test_valid_as_the_reference_says_and_fixed_once_and_for_all(material, kind):
    directory = material / "data"

    @settings(deadline=None, suppress_health_check=list(HealthCheck))
    @given(directories(material, kind))
    def check(files):
        _write(files, directory)
        if not files:
            return
        errors = validate(directory)
        assert (errors == []) == reference(files, material), (errors, files)
        assert all(_is_well_formed(error, directory) for error in errors), errors
        assert _read(directory) == files
        if not errors:
            load_data_dir(directory)
        try:
            done = fix(directory)
        except UserError as error:
            assert _is_well_formed(str(error), directory), error
            assert errors and _read(directory) == files
            return
        finally:
            assert not [path for path in material.iterdir() if path.name.startswith(".")]
        assert bool(done) == bool(errors), (errors, done)
        assert validate(directory) == []
        after = _read(directory)
        assert reference(after, material), after
        assert fix(directory) == [] and _read(directory) == after

    check()
    assert not Path("canary").exists()
