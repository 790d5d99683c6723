"""Data directories: what is valid, every kind of error by file and line, and what is done to fix it."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from programs import call

from speechlvm.bin import fix_data_dir, validate_data_dir
from speechlvm.data.audio import write_wav
from speechlvm.data.kaldi.directory import DataDirectory, Interval, load_data_dir, write_data_dir
from speechlvm.data.kaldi.fix import fix
from speechlvm.data.kaldi.matrices import write_vectors
from speechlvm.data.kaldi.tables import FIXER
from speechlvm.data.kaldi.validate import validate
from speechlvm.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[4]
UTTERANCES = ("A_1", "A_2", "B-x_1")


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> tuple[Path, DataDirectory]:
    """A valid directory, with blanks in its path and in the paths of its audio."""
    root = tmp_path_factory.mktemp("a b")
    data = DataDirectory({"B-x_1": "B-x", "A_2": "A", "A_1": "A"})
    for index, name in enumerate(UTTERANCES):
        data.wav[name] = root / f"au dio {name}.wav"
        data.num_samples[name] = 100 + index
        write_wav(data.wav[name], np.arange(100 + index, dtype=np.int16), 16000)
        data.text[name] = "Hello, there; it's me"
    data.spk2gender = {"A": "m", "B-x": "f"}
    data.spk2height_cm = {"A": 167.6}
    data.spk2dialect = {"A": "DR1", "B-x": "DR2"}
    data.phones = {"A_1": [Interval(0, 40, "h#"), Interval(40, 100, "ax")], "B-x_1": [Interval(5, 102, "s")]}
    data.words = {"A_1": [Interval(0, 60, "a"), Interval(30, 100, "b")]}  # words may overlap
    write_data_dir(data, root / "data")
    return root / "data", data


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def directory(good, tmp_path) -> Path:
    return Path(shutil.copytree(good[0], tmp_path / "data"))


def change(directory: Path, name: str, edit) -> None:
    """Replaces the bytes of a file by edit(bytes)."""
    path = directory / name
    path.write_bytes(edit(path.read_bytes() if path.exists() else b""))


def snapshot(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_written_directory_is_valid_and_read_back(good):
    path, data = good
    assert validate(path) == []
    assert load_data_dir(path) == data
    assert data.utterances == ["A_1", "A_2", "B-x_1"]
    assert (path / "spk2utt").read_text() == "A A_1 A_2\nB-x B-x_1\n"
    assert (path / "spk2height").read_text() == "A 167.6\n"
    assert (path / "phones").read_text() == "A_1 0 40 h#\nA_1 40 100 ax\nB-x_1 5 102 s\n"
    assert fix(path) == []


def test_order_is_that_of_bytes(tmp_path):
    names = ["b", "B", "a", "A_", "Aa", "A.", "A-"]
    data = DataDirectory({name: name[0] for name in names}, {name: Path(f"/{name}") for name in names},
                         dict.fromkeys(names, 1))  # fmt: skip
    write_data_dir(data, tmp_path / "d")
    keys = [line.split()[0] for line in (tmp_path / "d" / "utt2spk").read_text().splitlines()]
    assert keys == ["A-", "A.", "A_", "Aa", "B", "a", "b"]


def test_vector_directories_have_feats_and_frames(tmp_path):
    data = DataDirectory({"A_1": "A"}, feats={"A_1": "/x.ark:12"}, num_frames={"A_1": 7}, channels={"x": "real"})
    write_data_dir(data, tmp_path / "d")
    assert validate(tmp_path / "d", check_audio=False) == [] and load_data_dir(tmp_path / "d") == data
    (tmp_path / "d" / "utt2num_frames").unlink()
    assert validate(tmp_path / "d", check_audio=False) == [
        f"{tmp_path}/d/utt2num_frames: no such file; prepare the data again"
    ]


def test_directories_of_vectors_are_fixed_if_their_archives_are_right(tmp_path):
    feats, num_frames = write_vectors(tmp_path, "all", [("A_1", np.ones((7, 1), np.float32))])
    path = tmp_path / "d"
    write_data_dir(DataDirectory({"A_1": "A"}, feats=feats, num_frames=num_frames, channels={"x": "real"}), path)
    change(path, "utt2spk", lambda b: b.replace(b"\n", b"\r\n"))
    assert fix(path) == [f"{path}/utt2spk:1: CRLF line endings in 1 of 1 lines: repaired"] and validate(path) == []
    change(path, "utt2spk", lambda b: b.replace(b"\n", b"\r\n"))
    wrong = {
        "feats.scp": (b":4\n", b":5\n", f"A_1: {feats['A_1'][:-1]}5: no record of A_1; prepare the data again"),
        "utt2num_frames": (b"7", b"8", "A_1: 8 frames, but the archive has 7; prepare the data again"),
    }
    for name, (old, new, error) in wrong.items():
        change(path, name, lambda b, old=old, new=new: b.replace(old, new))
        before = snapshot(path)
        with pytest.raises(UserError) as refused:
            fix(path)
        assert str(refused.value) == f"{path}/{name}:1: {error} (not fixed: nothing was changed)"
        assert f"{path}/{name}:1: {error}" in validate(path) and snapshot(path) == before
        change(path, name, lambda b, old=old, new=new: b.replace(new, old))


def test_relative_paths_are_those_of_the_current_directory(directory, monkeypatch, tmp_path):
    write_wav(tmp_path / "x y.wav", np.arange(100, dtype=np.int16), 16000)
    lines = (directory / "wav.scp").read_text().splitlines()
    change(directory, "wav.scp", lambda _: "\n".join(["A_1 x y.wav", *lines[1:], ""]).encode())
    monkeypatch.chdir(tmp_path)
    assert validate(directory) == []
    monkeypatch.chdir("/")
    (error,) = validate(directory)
    assert error.endswith("x y.wav: no such file; check the path, or mount the corpus (relative paths start at /)")


PATH = b"/data/x.wav"
# file, edit of its bytes, an error expected (after the path of the file); whether it can be fixed, or what is reported
CASES = {
    "CRLF": ("utt2spk", lambda b: b.replace(b"\n", b"\r\n"), f":1: CRLF line endings in 3 of 3 lines; {FIXER}",
             ":1: CRLF line endings in 3 of 3 lines: repaired"),
    "BOM": ("utt2spk", lambda b: b"\xef\xbb\xbf" + b, f":1: UTF-8 byte order mark; {FIXER}",
            ":1: UTF-8 byte order mark: repaired"),
    "UTF-16": ("text", lambda b: b.decode().encode("utf-16"), f":1: UTF-16-LE byte order mark; {FIXER}", True),
    "UTF-16 without a mark": ("text", lambda b: b.decode().encode("utf-16-le"),
                              ":1: NUL byte or UTF-16; expected UTF-8 text; convert it with iconv -f UTF-16 ", False),
    "NUL": ("text", lambda b: b.replace(b"me\nB", b"m\0\nB"), ":2: NUL byte or UTF-16; expected UTF-8", False),
    "latin-1": ("text", lambda b: b.replace(b"A_2 Hello", b"A_2 H\xe9llo"), ":2: byte 0xe9 is not UTF-8", False),
    "blank line": ("wav.scp", lambda b: b.replace(b"\n", b"\n \n", 1), f":2: blank line; {FIXER}", True),
    "trailing blanks": ("utt2spk", lambda b: b.replace(b"A_2 A", b"A_2 A \t"), ":2: trailing whitespace", True),
    "leading blanks": ("utt2spk", lambda b: b" " + b, ":1: leading whitespace", True),
    "two blanks": ("wav.scp", lambda b: b.replace(b"A_2 ", b"A_2  "), ":2: more than one space after the utt", True),
    "no final newline": ("text", lambda b: b[:-1], f":3: no newline at the end of the file; {FIXER}", True),
    "unsorted": ("utt2spk", lambda b: b"".join(b.splitlines(True)[::-1]),
                 f":2: not sorted as LC_ALL=C sorts: 'A_2' comes after 'B-x_1'; {FIXER}", ": sorted as LC_ALL=C sorts"),
    "unsorted intervals": ("phones", lambda b: b.replace(b"A_1 0 40 h#\nA_1 40 100 ax", b"A_1 40 100 ax\nA_1 0 40 h#"),
                           ":2: not sorted as LC_ALL=C sorts", True),
    "repeated line": ("utt2spk", lambda b: b"A_1 A\n" + b, f":2: duplicate line: 'A_1' is also in line 1; {FIXER}",
                      ":2: removed 'A_1 A', a repetition of line 1"),
    "two values": ("utt2spk", lambda b: b"A_1 A_\n" + b,
                   ":2: duplicate utterance with another value: 'A_1' is also in line 1; remove one", False),
    "two paths": ("wav.scp", lambda b: b"A_1 " + PATH + b"\n" + b, ":2: duplicate utterance with another value", False),
    "three columns": ("utt2spk", lambda b: b.replace(b"A_2 A", b"A_2 A B"), ":2: 3 columns; expected 2 (utt", False),
    "id with a blank": ("utt2spk", lambda b: b.replace(b"A_2", b"A 2"), ":2: 3 columns; expected 2 (utt", False),
    "id with a tab": ("utt2spk", lambda b: b.replace(b"A_2", b"A\t2"), ":2: 3 columns; expected 2 (utt", False),
    "one column": ("wav.scp", lambda b: b.split(b" ")[0] + b"\n", ":1: 1 column; expected at least 2", False),
    "control character": ("text", lambda b: b.replace(b"A_2 H", b"A_2 \x0bH"), ":2: control character '\\x0b'", False),
    "no prefix": ("utt2spk", lambda b: b.replace(b"A_2 A", b"A_2 C"), ":2: speaker 'C' is not a prefix of utt", False),
    "gender": ("spk2gender", lambda b: b.replace(b"m", b"x"), ":1: 'x'; expected m or f", False),
    "gender in capitals": ("spk2gender", lambda b: b.replace(b"m", b"M"), ":1: 'M'; expected m or f", False),
    "height": ("spk2height", lambda b: b"A 5'6\n", ":1: '5'6'; expected a height in cm", False),
    "zero length": ("utt2num_samples", lambda b: b.replace(b"A_2 101", b"A_2 0"),
                    ":2: '0'; expected a positive number", True),
    "wrong length": ("utt2num_samples", lambda b: b.replace(b"101", b"999"),
                     f":2: A_2: 999 samples, but the audio has 101; {FIXER}", ": recomputed from the audio files"),
    "pipe": ("wav.scp", lambda b: b.replace(b"2.wav", b"2.wav |"), "2.wav |' is a command; give --allow_pipes", False),
    "pipe in front": ("wav.scp", lambda b: b.replace(b"A_2 ", b"A_2 |"), "' starts with '|'; a command that", False),
    "home": ("wav.scp", lambda b: b.replace(b"A_2 ", b"A_2 ~"), "' starts with '~', which is not expanded", False),
    "missing audio": ("wav.scp", lambda b: b.replace(b"2.wav", b"3.wav"), "3.wav: no such file", False),
    "same audio twice": ("wav.scp", lambda b: b.replace(b"A_2.wav", b"A_1.wav"),
                         ":2: the same file as 'A_1' in line 1", False),
    "unknown utterance": ("text", lambda b: b"A_0 hi\n" + b, f":1: utterance 'A_0' is not in utt2spk; {FIXER}", True),
    "unknown speaker": ("spk2gender", lambda b: b + b"C m\n", f":3: speaker 'C' is not in utt2spk; {FIXER}", True),
    "not in wav.scp": ("wav.scp", lambda b: b.split(b"\n", 1)[1],
                       f"utt2spk:1: utterance 'A_1' is not in wav.scp; {FIXER}", True),
    "not in utt2spk": ("utt2spk", lambda b: b.split(b"\n", 1)[1],
                       f"wav.scp:1: utterance 'A_1' is not in utt2spk; {FIXER}", True),
    "not in utt2num_samples": ("utt2num_samples", lambda b: b.split(b"\n", 1)[1],
                               f"utt2spk:1: utterance 'A_1' is not in utt2num_samples; {FIXER}", True),
    "spk2utt disagrees": ("spk2utt", lambda b: b"A A_1\nB-x A_2 B-x_1\n",
                          f":2: 'A_2' under 'B-x', but utt2spk says 'A'; {FIXER}", ": recomputed from utt2spk"),
    "spk2utt lists one twice": ("spk2utt", lambda b: b"A A_1 A_2 A_1\nB-x B-x_1\n",
                                f":1: 'A_1' is listed twice, also in line 1; {FIXER}", True),
    "spk2utt lacks one": ("spk2utt", lambda b: b"A A_1\nB-x B-x_1\n",
                          ": utterance 'A_2' of utt2spk line 2 is not listed", True),
    "end before start": ("phones", lambda b: b.replace(b"A_1 40 100", b"A_1 40 40"),
                         ":2: A_1: ends at 40, not after its start at 40", False),
    "no number": ("phones", lambda b: b.replace(b"A_1 40 100", b"A_1 40.5 100"),
                  ":2: A_1: times '40.5' and '100'; expected whole sample numbers", False),
    "negative": ("words", lambda b: b.replace(b"A_1 0", b"A_1 -5"), ":1: A_1: times '-5' and '60'", False),
    "overlap": ("phones", lambda b: b.replace(b"A_1 40 100", b"A_1 39 100"),
                ":2: A_1: starts before line 1 ends", False),
    "past the end": ("words", lambda b: b.replace(b"30 100 b", b"30 101 b"),
                     ":2: A_1: ends at 101, past the audio's 100 samples", False),
    "label with a blank": ("phones", lambda b: b.replace(b" ax", b" a x"), ":2: 5 columns; expected 4", False),
    "empty": ("text", lambda b: b"", ":1: empty file; remove it", True),
}  # fmt: skip
IDS = {"$(touch canary)": "", "`touch canary`": "", "A_1;ls": "", "A|b": "", "A*": "", "-A": "", "A/b": "", "..": "",
       ".": "", "../../x": "", "\u00c5_1": r" (\xc5_1)", "A\u030a_1": r" (A\u030a_1)",
       "\u0410_1": r" (\u0410_1)"}  # fmt: skip
for bad_id, escaped in IDS.items():
    reason = f":1: unsafe id '{bad_id.split()[0]}'{escaped}; allowed are [A-Za-z0-9_.-], not starting with '-'; rename"
    CASES[f"id {bad_id}"] = ("text", lambda b, i=bad_id: f"{i} hello\n".encode() + b, reason, False)


@pytest.mark.parametrize("name, edit, error, fixed", CASES.values(), ids=CASES)
def test_errors_are_found_and_fixed_or_left_alone(directory, name, edit, error, fixed):
    change(directory, name, edit)
    before = snapshot(directory)
    errors = validate(directory)
    expected = f"{directory}/{name}{error}" if error.startswith(":") else error
    assert any(expected in found for found in errors), errors
    assert all(found.startswith(f"{directory}/") and "\n" not in found for found in errors)
    assert snapshot(directory) == before
    if fixed:
        done = fix(directory)
        assert done and (fixed is True or f"{directory}/{name}{fixed}" in done)
        assert validate(directory) == []
        after = snapshot(directory)
        assert fix(directory) == [] and snapshot(directory) == after
    else:
        with pytest.raises(UserError, match="nothing was changed"):
            fix(directory)
        assert snapshot(directory) == before
    assert [path.name for path in directory.parent.iterdir()] == ["data"]
    assert not Path("canary").exists()


@pytest.mark.parametrize("name", ["utt2spk", "wav.scp"])
def test_missing_mandatory_files(directory, name):
    (directory / name).unlink()
    assert any(f"{directory / name}: no such file; prepare the data again" in error for error in validate(directory))
    with pytest.raises(UserError, match=f"{name}: no such file"):
        fix(directory)


@pytest.mark.parametrize("name", ["spk2utt", "utt2num_samples"])
def test_files_that_can_be_computed_are(directory, name):
    before = snapshot(directory)
    (directory / name).unlink()
    assert validate(directory)
    assert any("recomputed" in line for line in fix(directory))
    assert snapshot(directory) == before


def test_all_missing_audio_files_are_listed(directory):
    change(directory, "wav.scp", lambda b: b.replace(b".wav", b".gone"))
    assert sum("no such file" in error for error in validate(directory)) == 3
    assert validate(directory, check_audio=False) == []


def test_fixer_says_each_thing_done(directory):
    change(directory, "wav.scp", lambda b: b.split(b"\n", 1)[1])
    assert fix(directory) == [
        f"{directory}/utt2spk:1: removed 'A_1 A': A_1 not in wav.scp",
        f"{directory}/text:1: removed 'A_1 Hello, there; it's me': A_1 not in wav.scp",
        f"{directory}/phones:1: removed 'A_1 0 40 h#': A_1 not in wav.scp",
        f"{directory}/phones:2: removed 'A_1 40 100 ax': A_1 not in wav.scp",
        f"{directory}/words:1: removed 'A_1 0 60 a': A_1 not in wav.scp",
        f"{directory}/words:2: removed 'A_1 30 100 b': A_1 not in wav.scp",
        f"{directory}/spk2utt: recomputed from utt2spk",
        f"{directory}/utt2num_samples: recomputed from the audio files",
        f"{directory}/words: removed, as no line was left",
    ]
    assert validate(directory) == []


def test_what_is_valid_stays_as_it_is(directory):
    change(directory, "spk2utt", lambda b: b.replace(b" A_1 A_2", b"\tA_2  A_1"))
    before = snapshot(directory)
    assert validate(directory) == [] and fix(directory) == [] and snapshot(directory) == before


def test_nothing_in_common_is_not_fixed(directory):
    change(directory, "wav.scp", lambda b: b"Z_1 /x.wav\n")
    before = snapshot(directory)
    with pytest.raises(UserError, match=r"no utterance is in all of utt2spk, wav\.scp"):
        fix(directory)
    assert snapshot(directory) == before


def test_load_refuses_with_the_first_error(directory):
    change(directory, "utt2spk", lambda b: b.replace(b"\n", b"\r\n") + b"\n")
    with pytest.raises(UserError, match=r"utt2spk:1: CRLF.*\(and 1 more; utils/validate_data_dir.sh .* lists all\)"):
        load_data_dir(directory)
    with pytest.raises(UserError, match="no such directory"):
        load_data_dir(directory / "nothing")


def test_write_refuses_what_is_not_valid_and_keeps_the_old(directory, good):
    before = snapshot(directory)
    data = DataDirectory({"A_1": "B"}, {"A_1": Path("/x")}, {"A_1": 5})
    with pytest.raises(UserError, match=f"{directory}/utt2spk:1: speaker 'B' is not a prefix"):
        write_data_dir(data, directory)
    assert snapshot(directory) == before
    write_data_dir(DataDirectory({"A_1": "A"}, {"A_1": Path("/x")}, {"A_1": 5}), directory)
    assert sorted(path.name for path in directory.iterdir()) == ["spk2utt", "utt2num_samples", "utt2spk", "wav.scp"]
    assert [path.name for path in directory.parent.iterdir()] == ["data"]


def test_programs_exit_with_the_truth(directory):
    valid, fixed = call(validate_data_dir.main, directory), call(fix_data_dir.main, directory)
    assert (valid.returncode, valid.stdout, valid.stderr) == (0, f"{directory}: valid\n", "")
    assert (fixed.returncode, fixed.stdout, fixed.stderr) == (0, f"{directory}: nothing to fix\n", "")
    change(directory, "utt2spk", lambda b: b.replace(b"\n", b"\r\n"))
    crlf = f"{directory}/utt2spk:1: CRLF line endings in 3 of 3 lines"
    valid = call(validate_data_dir.main, directory)
    assert (valid.returncode, valid.stdout, valid.stderr) == (1, "", f"error: {crlf}; {FIXER}\n")
    fixed = call(fix_data_dir.main, directory)
    assert (fixed.returncode, fixed.stdout, fixed.stderr) == (0, f"{crlf}: repaired\n", "")
    change(directory, "utt2spk", lambda b: b.replace(b"A_2 A", b"A_2 A B"))
    error = f"error: {directory}/utt2spk:2: 3 columns; expected 2 (utterance speaker)"
    valid, fixed = call(validate_data_dir.main, directory), call(fix_data_dir.main, directory)
    assert (valid.returncode, valid.stderr) == (1, f"{error}\n")
    assert (fixed.returncode, fixed.stderr) == (1, f"{error} (not fixed: nothing was changed)\n")


@pytest.mark.parametrize("script", ["validate_data_dir.sh", "fix_data_dir.sh"])
def test_programs_are_those_of_the_script_s_own_tree(tmp_path, script):
    """Also by a recipe's link to utils, and where CDPATH is exported: there cd says where it goes."""
    python = tmp_path / "tools/venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$PYTHONPATH"\n')
    python.chmod(0o755)
    (tmp_path / "utils").mkdir()
    shutil.copy(ROOT / "utils" / script, tmp_path / "utils")
    recipe = tmp_path / "egs/mine"
    recipe.mkdir(parents=True)
    (recipe / "utils").symlink_to("../../utils")
    environment = {"PATH": os.environ["PATH"], "CDPATH": "."}
    for place in (tmp_path, recipe):
        command = ["bash", f"utils/{script}", "x"]
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, f"{tmp_path}\n"), done.stderr
