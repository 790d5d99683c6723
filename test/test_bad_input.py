"""What bad input does, row by row of a table of it: exit status and message of the programs that people call.

Rows that need more than this are elsewhere: 1 to 21 (audio) in speechlvm/data/test_bad_audio.py, 49 (archives) in
speechlvm/data/corpora/test_unpack.py, 50 (downloads) in test_download.py beside it, 53 (XML) in egs/test_iam_ondb.py;
what checkpoints may hold, beyond rows 45 to 48, in speechlvm/experiment/test_checkpoint.py.
"""

import errno
import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from imitations import representations, timit
from programs import call, load

from speechlvm import __version__
from speechlvm.bin import analyse, baseline, dump, fix_data_dir, score, train, validate_data_dir
from speechlvm.data.audio import write_wav
from speechlvm.data.dumps import open_dump
from speechlvm.data.kaldi.tables import FIXER
from speechlvm.experiment.checkpoint import Checkpoints
from speechlvm.experiment.config import dump_yaml, load_config
from speechlvm.experiment.load import build
from speechlvm.models import MODELS, model_class
from speechlvm.observation import Observation
from speechlvm.training.trainer import Progress
from speechlvm.utils.errors import ConfigError
from speechlvm.utils.settings import validated

ROOT = Path(__file__).resolve().parents[1]
SAFE = "allowed are [A-Za-z0-9_.-], not starting with '-'; rename it"
UNTOUCHED = " (not fixed: nothing was changed)"
UTTERANCES = ("A_1", "A_2", "B_1")

# --- Data directories -------------------------------------------------------------------------------------------------


def make_directory(path: Path, audio: Path, utterances=UTTERANCES) -> Path:
    """A valid data directory; utterance number i has 100 + i samples. The speaker is what stands before the '_'."""
    path.mkdir(parents=True)
    for index, utterance in enumerate(utterances):
        if not (audio / f"{utterance}.wav").exists():
            write_wav(audio / f"{utterance}.wav", np.arange(100 + index, dtype=np.int16), 16000)
    speakers = sorted({utterance.split("_")[0] for utterance in utterances})
    files = {
        "wav.scp": [f"{u} {audio}/{u}.wav" for u in utterances],
        "utt2spk": [f"{u} {u.split('_')[0]}" for u in utterances],
        "spk2utt": [" ".join([s, *(u for u in utterances if u.split("_")[0] == s)]) for s in speakers],
        "utt2num_samples": [f"{u} {((audio / f'{u}.wav').stat().st_size - 44) // 2}" for u in utterances],
        "text": [f"{u} some words" for u in utterances],
    }
    for name, lines in files.items():
        (path / name).write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current directory, with a blank in its path, and a data directory `data` in it."""
    root = tmp_path / "a place"
    root.mkdir()
    make_directory(root / "data", root)
    monkeypatch.chdir(root)
    return root


WAV = "A_1 {place}/A_1.wav\nA_2 {place}/A_2.wav\nB_1 {place}/B_1.wav\n"
PREFIX = "is no prefix of utterance 'A_2', so that files sorted by either would differ; rename the utterance"
COMMAND = "is a command; give --allow_pipes if you trust every command in it, or write the path of an audio file"
# row, file, its new content ({place}: the directory of the audio), faults of that file ({name}: its path), and what the
# fixer says: a list of what it has done, or "": it refuses with the first fault and changes nothing
ROWS = [
    ("22 same id, same path", "wav.scp", "A_1 {place}/A_1.wav\n" + WAV,
     [f"2: duplicate line: 'A_1' is also in line 1; {FIXER}"],
     ["2: removed 'A_1 {place}/A_1.wav', a repetition of line 1"]),
    ("22 same id, other path", "wav.scp", WAV.replace("A_2", "A_1", 1),
     ["2: duplicate utterance with another value: 'A_1' is also in line 1; remove one of the two"], ""),
    ("23 id with a blank", "utt2spk", "A_1 A\nA 2 A\nB_1 B\n", ["2: 3 columns; expected 2 (utterance speaker)"], ""),
    ("23 id with a tab", "utt2spk", "A_1 A\nA\t2 A\nB_1 B\n", ["2: 3 columns; expected 2 (utterance speaker)"], ""),
    *(
        (f"24 id {number}", "text", f"{name} some words\nA_1 x\nA_2 x\nB_1 x\n", [f"1: unsafe id '{name}'; {SAFE}"], "")
        for number, name in enumerate(
            ["$(touch${IFS}canary)", "`touch${IFS}canary`", "A;touch${IFS}canary", "A|x", "A*", "-A", "A&x", "A>canary"]
        )
    ),
    ("25 id with a slash", "text", "A/1 x\nA_1 x\nA_2 x\nB_1 x\n", [f"1: unsafe id 'A/1'; {SAFE}"], ""),
    ("25 id that leads outside", "text", ".. x\n../../x x\nA_1 x\n",
     [f"1: unsafe id '..'; {SAFE}", f"2: unsafe id '../../x'; {SAFE}"], ""),
    ("26 NFC", "text", "A_1 x\nA_2 x\nB_1 x\nB_\u00c5 x\n", [f"4: unsafe id 'B_\u00c5' (B_\\xc5); {SAFE}"], ""),
    ("26 twins", "text", "A_1 x\nA_2 x\nB_1 x\nB_A\u030a x\nB_\u00c5 x\n",
     [f"4: unsafe id 'B_A\u030a' (B_A\\u030a); {SAFE}", f"5: unsafe id 'B_\u00c5' (B_\\xc5); {SAFE}",
      "5: duplicate utterance in another Unicode form (NFC, NFD): 'B_\u00c5' is also in line 4; remove one of the two"],
     ""),
    ("27 unsorted", "text", "A_2 x\nA_1 x\nB_1 x\n",
     [f"2: not sorted as LC_ALL=C sorts: 'A_1' comes after 'A_2'; {FIXER}"], [" sorted as LC_ALL=C sorts"]),
    ("28 CRLF", "text", "A_1 x\r\nA_2 x\r\nB_1 x\n", [f"1: CRLF line endings in 2 of 3 lines; {FIXER}"],
     ["1: CRLF line endings in 2 of 3 lines: repaired"]),
    ("29 byte order mark", "text", "\ufeffA_1 x\nA_2 x\nB_1 x\n", [f"1: UTF-8 byte order mark; {FIXER}"],
     ["1: UTF-8 byte order mark: repaired"]),
    ("29 UTF-16", "text", "A_1 x\nA_2 x\nB_1 x\n".encode("utf-16"),
     [f"1: UTF-16-LE byte order mark; {FIXER}"], ["1: UTF-16-LE byte order mark: repaired"]),
    ("29 UTF-16 without a mark", "text", "A_1 x\nA_2 x\nB_1 x\n".encode("utf-16-le"),
     ["1: NUL byte or UTF-16; expected UTF-8 text; convert it with iconv -f UTF-16 -t UTF-8"], ""),
    ("29 NUL", "text", "A_1 x\nA_2 \0\nB_1 x\n",
     ["2: NUL byte or UTF-16; expected UTF-8 text; convert it with iconv -f UTF-16 -t UTF-8"], ""),
    ("30 blanks and no newline", "text", "A_1 x \n\nA_2 x\nB_1 x",
     [f"4: no newline at the end of the file; {FIXER}", f"1: blanks at the end of the line; {FIXER}",
      f"2: blank line; {FIXER}"],
     ["4: no newline at the end of the file: repaired", "1: blanks at the end of the line: repaired",
      "2: blank line: repaired"]),
    ("31 three columns", "utt2spk", "A_1 A\nA_2 A B\nB_1 B\n", ["2: 3 columns; expected 2 (utterance speaker)"], ""),
    ("31 spk2utt disagrees", "spk2utt", "A A_1\nB A_2 B_1\n",
     [f"2: 'A_2' under 'B', but utt2spk says 'A'; {FIXER}"], [" recomputed from utt2spk"]),
    ("31 no prefix", "utt2spk", "A_1 A\nA_2 C\nB_1 B\n",
     [f"2: speaker 'C' {PREFIX}", f"2: speaker 'C' is not in spk2utt; {FIXER}"], ""),
    ("33 other length", "utt2num_samples", "A_1 100\nA_2 7\nB_1 102\n",
     [f"2: A_2: 7 samples, but the audio has 101; {FIXER}"], [" recomputed from the audio files"]),
    ("34 overlap", "phones", "A_1 0 50 a\nA_1 40 100 b\n",
     ["2: A_1: starts before line 1 ends; correct the times"], ""),
    ("34 end before start", "phones", "A_1 50 40 a\n", ["1: A_1: ends at 40, not after its start at 50"], ""),
    ("34 past the audio", "phones", "A_1 0 101 a\n",
     ["1: A_1: ends at 101, past the audio's 100 samples; prepare the data again"], ""),
    ("34 no integers", "phones", "A_1 0 99.5 a\n",
     ["1: A_1: times '0' and '99.5'; expected whole sample numbers"], ""),
    ("35 unknown and capital", "spk2gender", "A x\nB M\n", ["1: 'x'; expected m or f", "2: 'M'; expected m or f"], ""),
    ("38 pipe", "wav.scp", "A_1 touch canary; cat A_1.wav |\nA_2 {place}/A_2.wav\nB_1 {place}/B_1.wav\n",
     [f"1: A_1: 'touch canary; cat A_1.wav |' {COMMAND}"], ""),
    ("38 pipe in front", "wav.scp", "A_1 | touch canary\nA_2 {place}/A_2.wav\nB_1 {place}/B_1.wav\n",
     ["1: '| touch canary' starts with '|'; a command that audio is read from ends with it; write the path of a file"],
     ""),
    ("39 home", "wav.scp", "A_1 ~/A_1.wav\nA_2 {place}/A_2.wav\nB_1 {place}/B_1.wav\n",
     ["1: path '~/A_1.wav' starts with '~', which is not expanded; write the full path"], ""),
    ("39 relative, from elsewhere", "wav.scp", "A_1 in/A_1.wav\nA_2 {place}/A_2.wav\nB_1 {place}/B_1.wav\n",
     ["1: A_1: in/A_1.wav: no such file; check the path, or mount the corpus (relative paths start at {place})"], ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "faults", "mended"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS])
def test_rows_of_data_directories(place, name, content, faults, mended):
    path = place / "data" / name
    path.write_bytes(content.replace("{place}", str(place)).encode() if isinstance(content, str) else content)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    expected = [f"{path}:{fault.replace('{place}', str(place))}" for fault in faults]
    done = call(validate_data_dir.main, path.parent)
    found = done.stderr.splitlines()
    assert done.returncode == 1 and done.stdout == ""
    assert [line for line in found if f"/{name}:" in line] == [f"error: {line}" for line in expected]
    assert all(line.startswith("error: ") and f"{place}/data/" in line for line in found)

    done = call(fix_data_dir.main, path.parent)
    if mended:
        repairs = [f"{path}:{repair.replace('{place}', str(place))}" for repair in mended]
        assert (done.returncode, done.stderr) == (0, "")
        assert [line for line in done.stdout.splitlines() if f"/{name}:" in line] == repairs
        assert call(validate_data_dir.main, path.parent).returncode == 0
    else:
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.endswith(f"{UNTOUCHED}\n") and done.stderr.count("\n") == 1
        assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    assert not (place / "canary").exists() and not list(place.rglob("*canary*"))


def test_row_38_a_command_that_fails_is_never_an_empty_signal(place):
    path = place / "data" / "wav.scp"
    path.write_text(path.read_text().replace(f"A_1 {place}/A_1.wav", "A_1 cat A_1.wav; exit 7 |"))
    ended = "'cat A_1.wav; exit 7 |' ended with status 7; its output is not used; fix the command"
    done = call(validate_data_dir.main, "--allow_pipes", path.parent)
    assert (done.returncode, done.stderr) == (1, f"error: {path}:1: A_1: {ended}\n")
    done = call(dump.main, "--data", path.parent, "--out", place / "dump", "--allow_pipes")
    assert (done.returncode, done.stderr) == (1, f"error: {ended}\n")
    assert not list(place.glob("dump/*"))


SEGMENTS = "A_1 rec 0 0.5\nA_2 rec 0.5 -1\nB_1 rec 0 1\n"
TO_THE_END = "(end -1: the recording's end)"
ROWS_32 = {
    "end at start": ("0 0.5", "0.5 0.5", "1: A_1: ends at 0.5 s, not after its start at 0.5 s; correct the times"),
    "negative": ("0 0.5", "-1 0.5", f"1: A_1: times '-1' and '0.5'; expected seconds from 0 {TO_THE_END}"),
    "past the end": (
        "rec 0 1", "rec 0 1.6",
        f"3: B_1: ends at sample 25600, past the 16000 of 'rec' at 16000 Hz; correct the times {TO_THE_END}",
    ),
    "unknown recording": ("B_1 rec", "B_1 record", f"3: recording 'record' is not in wav.scp; {FIXER}"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "fault"), ROWS_32.values(), ids=[f"32 {name}" for name in ROWS_32])
def test_row_32_segments(place, old, new, fault):
    path = place / "data"
    write_wav(place / "rec.wav", np.arange(16000, dtype=np.int16), 16000)
    (path / "wav.scp").write_text(f"rec {place}/rec.wav\n")
    (path / "segments").write_text(SEGMENTS)
    (path / "utt2num_samples").write_text("A_1 8000\nA_2 8000\nB_1 16000\n")
    assert call(validate_data_dir.main, path).returncode == 0
    (path / "segments").write_text(SEGMENTS.replace(old, new))
    done = call(validate_data_dir.main, path)
    assert (done.returncode, done.stderr) == (1, f"error: {path}/segments:{fault}\n")


# --- Sets -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sets(tmp_path):
    """Valid sets train, valid and test, which share a speaker only where they may."""
    members = {"train": ("A_1", "A_2", "B_1"), "valid": ("A_3", "B_2"), "test": ("C_1", "D_1")}
    return [make_directory(tmp_path / name, tmp_path, utterances) for name, utterances in members.items()]


def in_another_set(sets, utterance):
    make_directory(sets[2].parent / "more", sets[2].parent, (utterance, "C_1"))
    sets[2] = sets[2].parent / "more"


def under_another_name(sets, link):
    audio = sets[2].parent
    (audio / "D_1.wav").unlink()
    link(audio / "D_1.wav", audio / "A_2.wav")
    (sets[2] / "utt2num_samples").write_text("C_1 100\nD_1 101\n")


ROWS_36 = {
    "speaker in train and test": (
        lambda sets: in_another_set(sets, "B_9"), "speakers",
        "{more}/utt2spk:1: B_9: speaker 'B' is also in {train}/utt2spk:3; {anew}",
    ),
    "utterance in train and test": (
        lambda sets: in_another_set(sets, "B_1"), "utterances",
        "{more}/utt2spk:1: utterance 'B_1' is also in {train}/utt2spk:3; leave it in one of the sets",
    ),
    "utterance in valid and test": (
        lambda sets: in_another_set(sets, "B_2"), "utterances",
        "{more}/utt2spk:1: utterance 'B_2' is also in {valid}/utt2spk:2; leave it in one of the sets",
    ),
    "linked file": (
        lambda sets: under_another_name(sets, Path.symlink_to), "speakers",
        "{test}/wav.scp:2: D_1: the same audio as 'A_2' in {train}/wav.scp:2; leave it in one of the sets",
    ),
    "hard link": (
        lambda sets: under_another_name(sets, Path.hardlink_to), "utterances",
        "{test}/wav.scp:2: D_1: the same audio as 'A_2' in {train}/wav.scp:2; leave it in one of the sets",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "disjoint", "fault"), ROWS_36.values(), ids=[f"36 {name}" for name in ROWS_36])
def test_row_36_what_sets_must_not_share(sets, change, disjoint, fault):
    assert call(validate_data_dir.main, "--disjoint", "speakers", *sets).returncode == 0
    change(sets)
    done = call(validate_data_dir.main, "--disjoint", disjoint, *sets)
    names = {name: sets[0].parent / name for name in ("train", "valid", "test", "more")}
    names["anew"] = "test speakers must be unseen; split the corpus again"
    assert (done.returncode, done.stderr) == (1, f"error: {fault.format(**names)}\n")
    assert call(validate_data_dir.main, *sets).returncode == 0  # each by itself is valid


def test_row_36_speakers_may_be_heard_in_training_where_a_recipe_says_so(sets):
    in_another_set(sets, "B_9")
    assert call(validate_data_dir.main, "--disjoint", "utterances", *sets).returncode == 0


@pytest.mark.parametrize(("times", "shared"), [("0.5 1", False), ("0.499 1", True), ("0.2 0.3", True)])
def test_row_36_parts_of_one_recording(sets, times, shared):
    rec = sets[0].parent / "rec.wav"
    write_wav(rec, np.arange(16000, dtype=np.int16), 16000)
    for directory, lines in (
        (sets[0], "A_1 rec 0 0.1\nA_2 rec 0.1 0.2\nB_1 rec 0.1 0.5\n"),
        (sets[2], f"C_1 rec {times}\n"),
    ):
        (directory / "segments").write_text(lines)
        (directory / "wav.scp").write_text(f"rec {rec}\n")
    (sets[2] / "utt2spk").write_text("C_1 C\n")
    for directory in (sets[0], sets[2]):
        assert call(fix_data_dir.main, directory).returncode == 0
    done = call(validate_data_dir.main, "--disjoint", "speakers", *sets)
    fault = f"{sets[2]}/segments:1: C_1: the same audio as 'B_1' in {sets[0]}/segments:3; leave it in one of the sets"
    assert (done.returncode, done.stderr) == ((1, f"error: {fault}\n") if shared else (0, ""))


# --- Labels, counts and files of a corpus -----------------------------------------------------------------------------


@pytest.mark.parametrize(("named", "status"), [([], 1), (["--optional"], 0)], ids=["35 by name", "35 with all"])
def test_row_35_a_gender_is_never_guessed(tmp_path, named, status):
    values = {f"{s}_{i}": {"z1": np.full((4, 2), i, np.float32)} for s in ("mabc0", "fabc0") for i in (1, 2)}
    store, data = representations.make(tmp_path, "test", values, gender={"fabc0": "f"})
    done = call(
        analyse.main, "--analysis", "gender", "--latents", store, "--data", data, "--out", tmp_path / "o", *named
    )
    reason = (
        f"{data}/spk2gender: no line for mabc0; expected m or f of each speaker, as it is never guessed; add what is"
    )
    assert done.returncode == status and reason in done.stdout + done.stderr
    assert not (tmp_path / "o" / "result.json").exists()


def prepare_timit(corpus, out, *words):
    program = load(ROOT / "egs/timit/local/prepare.py")
    return call(program.main, "--corpus", corpus, "--out", out, *words)


PHONES = "0 1000 h#\n1000 2000 ax\n2000 3000 h#\n"
ROWS_34 = {
    "overlap": ("1000 2000", "900 2000", "2: 'ax' starts at 900, before the end at 1000 of the one above; {mend}"),
    "gap": ("1000 2000", "1100 2000", "2: 'ax' starts at 1100, after the end at 1000 of the one above; {mend}"),
    "end before start": ("1000 2000", "1000 900", "2: 'ax' ends at 900, before its start at 1000; correct the times"),
    "past the audio": (
        "2000 3000", "2000 3161",
        "3: 'h#' ends at 3161, 161 samples past the audio's 3000; expected at most 160; {other}",
    ),
    "unknown phone": ("ax", "AX", "2: unknown phone 'AX'; expected one of the corpus's 61 codes"),
    "no integer": ("1000 2000", "1000 2e3", "2: times '1000' and '2e3'; expected whole sample numbers"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "fault"), ROWS_34.values(), ids=[f"34 {name}" for name in ROWS_34])
def test_row_34_phones_of_timit(tmp_path, old, new, fault):
    path = timit.make(tmp_path / "corpus") / "TRAIN/DR1/FABC0/SA1.PHN"
    assert path.read_text() == PHONES
    path.write_text(PHONES.replace(old, new, 1))
    done = prepare_timit(tmp_path / "corpus", tmp_path / "data", "--expected", 9, 3)
    other = "the audio may be of another utterance, or cut"
    fault = fault.format(mend="correct the times, or remove the file", other=other)
    assert (done.returncode, done.stderr.splitlines()[0].partition(" (")[0]) == (1, f"error: {path}:{fault}")
    assert [path.name for path in (tmp_path / "data").glob("*")] in ([], ["lock"])  # no set


@pytest.mark.parametrize("end", [2900, 3160])
def test_row_34_a_last_end_somewhat_off_is_tolerated(tmp_path, end):
    path = timit.make(tmp_path / "corpus") / "TRAIN/DR1/FABC0/SA1.PHN"
    path.write_text(PHONES.replace("3000", str(end)))
    done = prepare_timit(tmp_path / "corpus", tmp_path / "data", "--expected", 9, 3)
    past = "warning: 1 .PHN files end up to 160 samples past the audio and were cut there: FABC0_SA1\n"
    assert (done.returncode, done.stderr) == (0, past if end > 3000 else "")


def test_row_37_counts_of_timit_are_compared(tmp_path):
    corpus = timit.make(tmp_path / "corpus")
    for path in (corpus / "TEST").rglob("*SX12.*"):
        path.unlink()
    for path in sorted(corpus.rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(path.name.lower()))
    done = prepare_timit(corpus, tmp_path / "data", "--expected", 9, 3, "--sa", "drop")
    assert (done.returncode, done.stderr) == (0, "warning: 9 utterances in TRAIN and 2 in TEST; expected 9 and 3\n")
    assert "SA1 and SA2 left out" in done.stdout
    texts = [tmp_path / "data" / name / "text" for name in ("train", "valid", "test")]
    utterances = [line.split()[0] for path in texts for line in path.read_text().splitlines()]
    assert len(utterances) == 7 and not any("_SA" in utterance for utterance in utterances)


# --- Configurations ---------------------------------------------------------------------------------------------------

CONFIG = """model: lstm
model_conf:
  stack: 16
  hidden: 12
  layers: 1
coding: mulaw
distribution: dmol
data:
  batch_frames: 4096
training:
  learning_rate:
    peak: 0.005
validation:
  every_steps: 4
limits:
  steps: 12
"""
MISSING = "{config}: training.learning_rate: missing; it has no default"
KEYS = "model, model_conf, coding, distribution, distribution_conf, data, training, validation, limits"
TEXT = "without quotation marks"
BIG = "#" * (1 << 20)
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
# row, what is replaced, by what, and what the error says after the name of the file
ROWS_CONFIG = [
    ("40 typo", "learning_rate", "learing_rate",
     ": training.learing_rate: unknown key; did you mean 'learning_rate'?; " + MISSING),
    ("40 unknown", "coding: mulaw", "coding: mulaw\nspeed: 3",
     f": speed: unknown key; expected one of {KEYS}"),
    ("40 of the model", "hidden", "hiden", ": model_conf: hiden: unknown key; did you mean 'hidden'?"),
    ("41 text for a number", "0.005", "'5e-3'",
     f": training.learning_rate.peak: input should be a valid number; found '5e-3' (str); write it {TEXT}"),
    ("41 quoted", "layers: 1", "layers: '1'",
     f": model_conf: layers: input should be a valid integer; found '1' (str); write it {TEXT}"),
    ("41 true as text", "steps: 12", "steps: 'true'",
     ": limits.steps: input should be a valid integer; found 'true' (str)"),
    ("41 truth for a number", "steps: 12", "steps: yes",
     ": limits.steps: input should be a valid integer; found True (bool)"),
    ("41 list", "steps: 12", "steps: [12]", ": limits.steps: input should be a valid integer; found [12] (list)"),
    ("41 octal", "steps: 12", "steps: 012", ": not valid YAML: line 16: '012' is no decimal number"),
    ("41 sexagesimal", "steps: 12", "seconds: 1:30", ": not valid YAML: line 16: '1:30' is no decimal number"),
    ("42 negative", "hidden: 12", "hidden: -1",
     ": model_conf: hidden: input should be greater than 0; found -1 (int)"),
    ("42 zero", "batch_frames: 4096", "batch_frames: 0",
     ": data.batch_frames: input should be greater than 0; found 0 (int)"),
    ("42 nan", "0.005", ".nan",
     ": training.learning_rate.peak: input should be a finite number; found nan (float)"),
    ("42 infinite", "0.005", ".inf",
     ": training.learning_rate.peak: input should be a finite number; found inf (float)"),
    ("42 stack", "stack: 16", "stack: 0", ": model_conf: stack: input should be greater than 0; found 0 (int)"),
    ("42 huge", "layers: 1", "layers: 1000000000",
     ": model_conf: layers: input should be less than or equal to 16; found 1000000000 (int)"),
    ("43 duplicate key", "  steps: 12", "  steps: 12\n  steps: 13",
     ": not valid YAML: line 17: key 'steps' is given twice"),
    ("43 code", "model: lstm", "model: !!python/object/apply:os.system [touch canary]",
     ": not valid YAML: line 1: tags are not allowed, found 'tag:yaml.org,2002:python/object/apply:os.system'"),
    ("43 aliases", "model: lstm\n", f"{BOMB}model: lstm\n", ": not valid YAML: line 2: aliases are not allowed"),
    ("43 depth", "model: lstm", "model: " + "[" * 100000, ": not valid YAML: nested too deeply"),
    ("43 size", "model: lstm\n", f"model: lstm\n{BIG}\n", ": {size} bytes; a configuration has at most 1048576"),
]  # fmt: skip


@pytest.fixture
def dumped(place):
    assert call(dump.main, "--data", place / "data", "--out", place / "dump").returncode == 0
    return place / "dump"


@pytest.mark.parametrize(("old", "new", "message"), [r[1:] for r in ROWS_CONFIG], ids=[r[0] for r in ROWS_CONFIG])
def test_rows_of_configurations(dumped, monkeypatch, old, new, message):
    path = dumped.parent / "config.yaml"
    assert old in CONFIG
    path.write_text(CONFIG.replace(old, new, 1))
    # nothing is allocated: neither is a dump opened nor a model built
    monkeypatch.setattr("speechlvm.data.dumps.open_dump", None)
    monkeypatch.setattr("speechlvm.experiment.load.build", None)
    done = call(train.main, "--config", path, "--train", dumped, "--valid", dumped, "--out", dumped.parent / "exp")
    message = message.replace("{config}", str(path)).replace("{size}", str(path.stat().st_size))
    assert (done.returncode, done.stderr) == (2, f"error: {path}{message}\n")
    assert not (dumped.parent / "exp").exists() and not (dumped.parent / "canary").exists()


def test_row_42_all_sizes_of_all_systems_have_bounds():
    """Of each number in the settings of each system; 10**9 of none is taken, nor 0 or less where it would be a size."""
    checked = 0
    for name in MODELS:
        settings = model_class(name).Config
        for key, field in settings.model_fields.items():
            if field.annotation is int:
                checked += 1
                needed = {k: 16 for k, f in settings.model_fields.items() if f.is_required() and k != key}
                for value in (-1, 10**9, float("nan"), "16", [16]):
                    with pytest.raises(ConfigError, match=rf"^s: {key}: input should be .*found"):
                        validated(settings, {**needed, key: value}, "s")
    assert checked > 25


# --- Options of recipes -----------------------------------------------------------------------------------------------

ROWS_44 = [
    (("--stage", "9", "--stop_stage", "3"), "--stage 9 --stop_stage 3: stop_stage precedes stage"),
    (("--stage", "9", "--stop-stage=3"), "--stage 9 --stop_stage 3: stop_stage precedes stage"),
    (("--stage", "x"), "--stage 'x': expected an integer from 0 to 10"),
    (("--stage", "11"), "--stage '11': expected an integer from 0 to 10"),
    (("--stage", ""), "--stage '': expected an integer from 0 to 10"),
    (("--nj", "0"), "--nj '0': expected an integer from 1 to 100000"),
    (("--nj", "$(touch canary)"), "--nj '$(touch canary)': expected an integer from 1 to 100000"),
    (("--ngpu", "99"), "--ngpu '99': expected an integer from 0 to 64"),
    (("--ngpu", "8"), "--ngpu 8: 0 GPUs are visible on this machine"),
    (("--nj",), "option '--nj' requires a value"),
    (("--nj", "--stage", "3"), "option '--nj' requires a value"),
    (("--no_such", "3"), "unknown option '--no_such'"),
    (("--stge", "3"), "unknown option '--stge'; did you mean --stage?"),
]


@pytest.mark.parametrize(("words", "message"), ROWS_44, ids=[f"44 {' '.join(row[0])}" for row in ROWS_44])
@pytest.mark.parametrize("recipe", ["mini", "timit"])
def test_row_44_wrong_usage_of_recipes(tmp_path, recipe, words, message):
    # without Python nothing could be started that should not be
    (tmp_path / "bin").mkdir()
    for name in ("bash", "dirname", "basename", "sed", "grep", "tr", "cat", "sort", "head", "tail", "wc", "awk"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [shutil.which("bash"), ROOT / f"egs/{recipe}/run.sh", *words],
        capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"run.sh: {message} (--help lists the options)\n"
    assert not (tmp_path / "canary").exists()


# --- Dumps and experiments --------------------------------------------------------------------------------------------


def shorter(dumped):
    archive = dumped / "pcm.2.ark"
    archive.write_bytes(archive.read_bytes()[:-10])
    return "B_1: ends after 194 of 204 bytes"


def changed(dumped):
    archive = dumped / "pcm.2.ark"
    archive.write_bytes(archive.read_bytes()[:-1] + b"\x77")
    return "B_1: damaged: the SHA-256 of its frames is not that of when they were written"


def of_another_dump(dumped):
    make_directory(dumped.parent / "other", dumped.parent / "in", ("A_1", "A_2", "B_1"))
    assert call(dump.main, "--data", dumped.parent / "other", "--out", dumped.parent / "d", "--nj", 2).returncode == 0
    shutil.copy(dumped.parent / "d" / "pcm.2.ark", dumped)
    return "A_2: damaged: the SHA-256 of its frames is not that of when they were written"


def of_a_killed_job(dumped):
    (dumped / "pcm.2.ark").rename(dumped / ".pcm.2.ark.1.tmp")
    return "A_2: No such file or directory"


@pytest.mark.parametrize(
    "damage", [shorter, changed, of_another_dump, of_a_killed_job], ids=lambda d: f"51 {d.__name__}"
)
def test_row_51_an_archive_that_is_not_what_its_index_says(place, damage):
    (place / "in").mkdir()
    for name in UTTERANCES:
        write_wav(place / "in" / f"{name}.wav", np.full(100 + UTTERANCES.index(name), 7, np.int16), 16000)
    dumped, words = place / "dump", ("--data", place / "data", "--out", place / "dump", "--nj", 2)
    assert call(dump.main, *words).returncode == 0
    whole = [(dumped / f"pcm.{job}.ark").read_bytes() for job in (1, 2)]
    message = damage(dumped)
    where = 4 if message.startswith("A_2") else whole[1].index(b"B_1 RIFF") + 4
    done = call(baseline.main, "--name", "flac", "--dump", dumped, "--train", dumped, "--out", place / "flac")
    belongs = (
        f"the archive does not belong to {dumped}/pcm.scp; remove {dumped}/shard.2.json and run stage 2 (dumps) again"
    )
    assert (done.returncode, done.stderr) == (1, f"error: {dumped}/pcm.2.ark:{where}: {message}; {belongs}\n")
    (dumped / "shard.2.json").unlink()
    before = (dumped / "pcm.1.ark").stat().st_mtime_ns
    assert call(dump.main, *words).returncode == 0
    assert (dumped / "pcm.1.ark").stat().st_mtime_ns == before  # the stage has redone that job alone
    assert [(dumped / f"pcm.{job}.ark").read_bytes() for job in (1, 2)] == whole
    assert (
        call(baseline.main, "--name", "flac", "--dump", dumped, "--train", dumped, "--out", place / "f").returncode == 0
    )


# Trains into directories of file systems that cannot be written, or are full from the start.
UNWRITABLE = """
import json, sys
from programs import call
from speechlvm.bin import train
config, dumped, *places = sys.argv[1:]
words = ("--config", config, "--train", dumped, "--valid", dumped, "--out")
done = [call(train.main, *words, f"{place}/exp") for place in places]
print(json.dumps([[one.returncode, one.stdout, one.stderr] for one in done]))
"""


@pytest.fixture
def mounted(tmp_path):
    """Runs a command where <place>/read-only and <place>/full are file systems of their own, which nobody else sees."""
    probe = ["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    for flags in ("-m", "-rm"):
        if subprocess.run(["unshare", flags, *probe], capture_output=True).returncode == 0:
            break
    else:
        pytest.skip("no file system can be mounted here (unshare -m needs root, unshare -rm user namespaces)")
    mount = (
        'mount -t tmpfs -o ro tmpfs "$1"; mount -t tmpfs -o size=8k tmpfs "$2"; head -c 8192 /dev/zero >"$2/x"; '
        'shift 2; "$@"'
    )

    def run(place, *words, **further):
        places = [place / "read-only", place / "full"]
        for path in places:
            path.mkdir()
        command = ["unshare", flags, "sh", "-ec", mount, "sh", *places, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, **further)

    return run


def test_row_54_experiments_that_cannot_be_written_are_refused_at_the_start(dumped, mounted):
    place = dumped.parent
    (place / "config.yaml").write_text(CONFIG)
    script = place / "script.py"
    loader = (
        "import sys\nfrom pathlib import Path\nexec(Path(sys.argv.pop(1)).read_text().partition('# Generated')[0])\n"
    )
    script.write_text(loader.replace("exec(", "__file__ = sys.argv[1]\nexec(") + UNWRITABLE)
    words = (script, ROOT / "test/conftest.py", place / "config.yaml", dumped, place / "read-only", place / "full")
    done = mounted(place, sys.executable, *words, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    read_only, full = json.loads(done.stdout)
    fault = f"{place}/read-only/exp/lock: cannot be written (Read-only file system); choose another directory"
    assert read_only == [1, "", f"error: {fault}\n"]
    assert full[:2] == [1, ""] and full[2].startswith(f"error: {place}/full/exp/lock: No space left on device")
    assert "bytes are needed" in full[2] and "are free" in full[2] and full[2].count("\n") == 1


def test_row_54_file_systems_without_locks(dumped, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    (dumped.parent / "config.yaml").write_text(CONFIG)
    out = dumped.parent / "exp"
    done = call(
        train.main, "--config", dumped.parent / "config.yaml", "--train", dumped, "--valid", dumped, "--out", out
    )
    reason = f"{out}/lock: this file system has no locks (No locks available), so two runs could write here at once; "
    assert done.returncode == 1 and done.stderr.startswith(f"error: {reason}") and done.stderr.count("\n") == 1
    assert sorted(path.name for path in out.iterdir()) == ["lock"]


def test_row_54_a_recipe_looks_at_its_experiments_first(tmp_path, mounted):
    words = ("bash", ROOT / "egs/mini/run.sh", "--stage", "2", "--expdir", tmp_path / "read-only" / "exp")
    done = mounted(tmp_path, *words, cwd=tmp_path, env={**os.environ, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)})
    fault = f"--expdir {tmp_path}/read-only/exp: not writable (read-only file system or permissions)"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"run.sh: {fault}; choose another directory\n")


def test_what_has_changed_under_an_experiment_is_named(dumped, place):
    """Seed and data as well as settings."""
    (place / "config.yaml").write_text(CONFIG)
    (place / "exp").mkdir()
    words = ("--config", place / "config.yaml", "--valid", dumped, "--out", place / "exp")
    (place / "exp" / "config.yaml").write_text(CONFIG.replace("peak: 0.005", "peak: 0.01"))
    (place / "exp" / "origin.json").write_text('{"seed": 1, "train_set": "dump", "train": "before", "valid": "before"}')
    done = call(train.main, *words, "--train", dumped, "--seed", 2)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    for fault in (
        "training.learning_rate.peak (was 0.01, now 0.005), ",
        f"data in {dumped} (was 'before', now '",
        "seed (was 1, now 2)",
    ):
        assert fault in done.stderr, done.stderr


# --- Checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """An experiment as a training leaves it, without its training, and its dump."""
    place = tmp_path_factory.mktemp("an experiment")
    make_directory(place / "data", place)
    assert call(dump.main, "--data", place / "data", "--out", place / "dump").returncode == 0
    (place / "config.yaml").write_text(CONFIG)
    config = load_config(place / "config.yaml")
    observation = Observation.of_dump(config.coding, open_dump(place / "dump"))
    model = build(config, observation, 1)
    content = {
        "model": model.state_dict(),
        "optimizer": torch.optim.Adam(model.parameters()).state_dict(),
        "generator": torch.get_rng_state(),
        "progress": asdict(Progress(step=7)),
        "observation": observation.to_dict(),
        "frozen": json.dumps(config.frozen(), sort_keys=True),
        "provenance": {"step": 7, "epoch": 0, "seconds": 1.0, "seed": 1, "data_hash": observation_hash(place)},
    }
    checkpoints = Checkpoints(place / "exp" / "checkpoints")
    checkpoints.save(7, content)
    checkpoints.mark_best(7, -1.0)
    (place / "exp" / "config.yaml").write_text(dump_yaml(config))
    (place / "exp" / "origin.json").write_text('{"train_set": "train"}')
    return place, content


def observation_hash(place):
    return json.loads((place / "dump" / "info.json").read_text())["data_hash"]


def rewrite(exp, data: bytes):
    """Puts other bytes in the place of the checkpoint, with a checksum that fits."""
    (exp / "checkpoints" / "step-00000007.pt").write_bytes(data)
    path = exp / "checkpoints" / "best.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sha256": hashlib.sha256(data).hexdigest()}))


def saved(exp, **changed):
    buffer = io.BytesIO()
    torch.save({**torch.load(exp / "checkpoints" / "step-00000007.pt", weights_only=True), **changed}, buffer)
    rewrite(exp, buffer.getvalue())


class Payload:
    def __reduce__(self):
        return os.system, ("touch canary",)


def settings_of_another(old, new):
    return lambda exp, content: (exp / "config.yaml").write_text((exp / "config.yaml").read_text().replace(old, new))


def bytes_of(change):
    def damage(exp, content):
        path = exp / "checkpoints" / "step-00000007.pt"
        path.write_bytes(change(path.read_bytes()))

    return damage


def weights(change):
    return lambda exp, content: saved(exp, model=change(dict(content["model"])))


STALE, NOT_LOADED = (
    "does not match best.json (truncated or altered); remove it and train again",
    "nothing was loaded",
)
OTHER, RESTORE = "checkpoint of another experiment", "restore config.yaml, or remove the experiment"
WAS = {"hidden": 12, "layers": 1, "mlp_layers": 3, "stack": 16}
SAYS = {"stack": 16, "hidden": 13, "layers": 1, "mlp_layers": 3}
KEYS_DIFFER = "weights of another model: Error(s) in loading state_dict for "
ROWS_45 = {
    "45 another size": (
        settings_of_another("hidden: 12", "hidden: 13"),
        f"{OTHER}: model_conf was {WAS}, config.yaml says {SAYS}; {RESTORE}",
    ),
    "45 another coding": (
        settings_of_another("coding: mulaw", "coding: mulaw8"),
        f"{OTHER}: coding was 'mulaw', config.yaml says 'mulaw8'; {RESTORE}",
    ),
    "45 weights of another size": (
        weights(lambda model: {name: value[:1] for name, value in model.items()}),
        KEYS_DIFFER,
    ),
    "45 weights of another model": (
        weights(lambda model: {f"x.{name}": value for name, value in model.items()}),
        KEYS_DIFFER,
    ),
    "46 truncated": (bytes_of(lambda data: data[:-100]), STALE),
    "46 bit flipped": (bytes_of(lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:]), STALE),
    "46 empty": (bytes_of(lambda data: b""), STALE),
    "47 pickle": (
        lambda exp, content: rewrite(exp, pickle.dumps(Payload())),
        f"damaged, or not a checkpoint of this project (BadZipFile); {NOT_LOADED}",
    ),
    "47 pickle in an archive": (
        lambda exp, content: saved(exp, model=Payload()),
        f"damaged, or not a checkpoint of this project (UnpicklingError); {NOT_LOADED}",
    ),
    "48 NaN": (
        weights(lambda model: {name: value * float("nan") for name, value in model.items()}),
        "weights are not finite: start_stack, encoder.hidden.0.weight, encoder.hidden.0.bias; use another checkpoint",
    ),
    "48 newer": (
        lambda exp, content: saved(exp, format=99, speechlvm="99.0"),
        f"format 99; speechlvm {__version__} reads up to 1; needs speechlvm >= 99.0",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), ROWS_45.values(), ids=ROWS_45)
def test_rows_of_checkpoints(experiment, tmp_path, monkeypatch, damage, message):
    place, content = experiment
    exp = tmp_path / "exp"
    shutil.copytree(place / "exp", exp)
    monkeypatch.chdir(tmp_path)
    damage(exp, content)
    done = call(score.main, "--exp", exp, "--dump", place / "dump", "--out", tmp_path / "score")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {exp}/checkpoints/step-00000007.pt: {message}"), done.stderr
    assert not (tmp_path / "canary").exists() and not (tmp_path / "score" / "result.json").exists()
