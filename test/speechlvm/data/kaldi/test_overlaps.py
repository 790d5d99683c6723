"""What the sets of a corpus share and must not: utterances, audio under any name, and speakers of test sets."""

from pathlib import Path

import numpy as np
import pytest
from programs import call

from speechlvm.bin import validate_data_dir
from speechlvm.data.audio import write_wav
from speechlvm.data.kaldi.directory import DataDirectory, write_data_dir
from speechlvm.data.kaldi.fix import fix
from speechlvm.data.kaldi.validate import overlaps, validate

ONE_SET = "leave it in one of the sets"


def make(root: Path, name: str, *utterances: str) -> Path:
    """A data directory; the speaker is the letter at the start of the utterance."""
    wav = {utterance: root / f"{utterance}.wav" for utterance in utterances}
    for path in wav.values():
        write_wav(path, np.arange(100, dtype=np.int16), 16000)
    write_data_dir(DataDirectory({u: u[0] for u in utterances}, wav, dict.fromkeys(utterances, 100)), root / name)
    return root / name


@pytest.fixture
def sets(tmp_path):
    """Valid sets that share a speaker only where they may."""
    train, valid = make(tmp_path, "train", "A_1", "A_2", "B_1"), make(tmp_path, "valid", "A_3", "B_2")
    return [train, valid, make(tmp_path, "test", "C_1", "D_1")]


def linked(link):
    def change(root: Path) -> None:
        (root / "D_1.wav").unlink()
        link(root / "D_1.wav", root / "A_2.wav")

    return change


SHARED = {
    "speaker in train and test": (
        lambda root: make(root, "test", "B_9", "C_1"), True,
        ("{test}/utt2spk:1: B_9: speaker 'B' is also in {train}/utt2spk:3; test speakers must be unseen; split the "
        "corpus again"),
    ),
    "utterance in train and test": (
        lambda root: make(root, "test", "B_1", "C_1"), False,
        f"{{test}}/utt2spk:1: utterance 'B_1' is also in {{train}}/utt2spk:3; {ONE_SET}",
    ),
    "utterance in valid and test": (
        lambda root: make(root, "test", "B_2", "C_1"), False,
        f"{{test}}/utt2spk:1: utterance 'B_2' is also in {{valid}}/utt2spk:2; {ONE_SET}",
    ),
    "symbolic link": (
        linked(Path.symlink_to), True,
        f"{{test}}/wav.scp:2: D_1: the same audio as 'A_2' in {{train}}/wav.scp:2; {ONE_SET}",
    ),
    "hard link": (
        linked(Path.hardlink_to), False,
        f"{{test}}/wav.scp:2: D_1: the same audio as 'A_2' in {{train}}/wav.scp:2; {ONE_SET}",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "speakers", "error"), SHARED.values(), ids=SHARED)
def test_what_sets_must_not_share(sets, change, speakers, error):
    assert overlaps(sets, speakers=True) == []
    change(sets[0].parent)
    assert overlaps(sets, speakers) == [error.format(**{path.name: path for path in sets})]
    assert [validate(path) for path in sets] == [[], [], []]  # each by itself is valid


@pytest.mark.parametrize(("times", "shared"), [("0.5 1", False), ("0.499 1", True), ("0.2 0.3", True)])
def test_parts_of_one_recording(sets, tmp_path, times, shared):
    write_wav(tmp_path / "rec.wav", np.arange(16000, dtype=np.int16), 16000)
    segments = {sets[0]: "A_1 rec 0 0.1\nA_2 rec 0.1 0.2\nB_1 rec 0.1 0.5\n", sets[2]: f"C_1 rec {times}\n"}
    (sets[2] / "utt2spk").write_text("C_1 C\n")
    for directory, lines in segments.items():
        (directory / "segments").write_text(lines)
        (directory / "wav.scp").write_text(f"rec {tmp_path}/rec.wav\n")
        fix(directory)
    error = f"{sets[2]}/segments:1: C_1: the same audio as 'B_1' in {sets[0]}/segments:3; {ONE_SET}"
    assert overlaps(sets, speakers=True) == ([error] if shared else [])


def test_the_program_compares_speakers_if_asked(sets, tmp_path):
    make(tmp_path, "test", "B_9", "C_1")
    done = {word: call(validate_data_dir.main, "--disjoint", word, *sets) for word in ("utterances", "speakers")}
    assert (done["utterances"].returncode, done["utterances"].stderr) == (0, "")
    assert done["speakers"].returncode == 1 and done["speakers"].stderr.startswith(f"error: {sets[2]}/utt2spk:1: B_9: ")
