"""What bad input does, row by row of a table of it: exit status and message of the programs that people call."""

import os
from pathlib import Path

import numpy as np
import pytest
from programs import call

from speechlvm.bin import fix_data_dir, validate_data_dir
from speechlvm.data.audio import write_wav

ROOT = Path(__file__).resolve().parents[1]
FIXER = "run utils/fix_data_dir.sh"
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
        "utt2num_samples": [f"{u} {100 + i}" for i, u in enumerate(utterances)],
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
     [f"2: 'A_2' under 'B', but utt2spk says 'A'; {FIXER}"], [" computed anew from utt2spk"]),
    ("31 no prefix", "utt2spk", "A_1 A\nA_2 C\nB_1 B\n",
     [f"2: speaker 'C' {PREFIX}", f"2: speaker 'C' is not in spk2utt; {FIXER}"], ""),
    ("33 other length", "utt2num_samples", "A_1 100\nA_2 7\nB_1 102\n",
     [f"2: A_2: 7 samples, but the audio has 101; {FIXER}"], [" computed anew from the audio files"]),
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
