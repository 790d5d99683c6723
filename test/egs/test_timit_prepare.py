"""TIMIT's preparation: every variant of the layout gives the same sets; what is wrong is named by file and line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from imitations.timit import make, sphere
from programs import call, load

from speechlvm.data.audio import write_wav
from speechlvm.data.corpora.preparation import PREPARATION
from speechlvm.data.kaldi.directory import load_data_dir
from speechlvm.data.kaldi.validate import validate

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "egs/timit/local/prepare.py"
SETS = ("train", "valid", "test")


@pytest.fixture
def corpus(tmp_path) -> Path:
    return make(tmp_path / "corpus of mine")


prepare = load(PROGRAM)


def run(corpus: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess:
    return call(prepare.main, "--corpus", corpus, "--out", out, *arguments)


def contents(out: Path) -> dict[str, str]:
    """All files of the three sets but the paths of the audio, and counts of what was odd in the corpus."""
    return {
        f"{name}/{path.name}": path.read_text()
        for name in SETS
        for path in sorted((out / name).iterdir())
        if path.name not in ("wav.scp", PREPARATION)
    }


def rename_all(root: Path, change) -> None:
    for path in sorted(root.rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(change(path.name)))


def to_riff(root: Path, ending: str, keep: bool) -> None:
    for path in list(root.rglob("*.WAV")):
        samples = np.frombuffer(path.read_bytes()[1024:], "<i2")
        if not keep:
            path.unlink()
        if ending == ".flac":
            soundfile.write(path.with_name(path.stem + ending), samples, 16000)
        else:
            write_wav(path.with_name(path.stem + ending), samples, 16000)


def add_mp3(root: Path) -> None:
    (root / "TRAIN/DR1/FABC0/SA1.mp3").write_bytes(b"x")


VARIANTS = {
    "as on the disc": lambda root: root,
    "lower case": lambda root: rename_all(root, str.lower) or root,
    "mixed case": lambda root: rename_all(root, str.capitalize) or root,
    "RIFF": lambda root: to_riff(root, ".WAV", False) or root,
    ".wav": lambda root: to_riff(root, ".wav", False) or root,
    ".flac and .mp3": lambda root: to_riff(root, ".flac", False) or add_mp3(root) or root,
    ".WAV.wav only": lambda root: to_riff(root, ".WAV.wav", False) or root,
    ".WAV.wav beside .WAV": lambda root: to_riff(root, ".WAV.wav", True) or root,
    "directory above": lambda root: Path(shutil.move(root, root.parent / "in/TIMIT")).parent,
    "two above, lower case": lambda root: Path(shutil.move(root, root.parent / "in/timit/timit")).parents[1],
    "far above": lambda root: shutil.copytree(root, root.parent / "in/timit/data/lisa/data/timit/raw/TIMIT").parents[5],
    "a part": lambda root: root / "TEST",
    "files of the system": lambda root: (root / "TRAIN/DR1/FABC0/._SA1.WAV").write_bytes(b"x") and root,
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_all_variants_of_the_layout_give_the_same(corpus, tmp_path, variant):
    assert run(corpus, tmp_path / "expected").returncode == 0
    (tmp_path / "in/timit").mkdir(parents=True)
    where = variant(corpus)
    result = run(where, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
    for name in SETS:
        assert validate(tmp_path / "out" / name) == []
        for path in load_data_dir(tmp_path / "out" / name).wav.values():
            assert path.is_absolute() and path.is_file()


def test_what_is_written(corpus, tmp_path):
    result = run(corpus, tmp_path, "--valid_by", "speaker", "--valid_speakers", "1", "--expected", "9", "3")
    assert result.returncode == 0 and result.stderr == ""
    data = {name: load_data_dir(tmp_path / name) for name in SETS}
    train, valid, test = (set(data[name].utt2spk.values()) for name in SETS)
    assert len(train) == 2 and len(valid) == 1 and test == {"MJKL0"} and not train & valid
    assert test.isdisjoint(train | valid)
    part = data["test"]
    assert part.utterances == ["MJKL0_SA1", "MJKL0_SI1034", "MJKL0_SX12"]
    assert part.num_samples == {"MJKL0_SA1": 3300, "MJKL0_SX12": 3301, "MJKL0_SI1034": 3302}
    assert part.text["MJKL0_SA1"] == "A b, MJKL0."
    assert part.phones["MJKL0_SA1"] == [(0, 1000, "h#"), (1000, 2000, "ax"), (2000, 3300, "h#")]
    assert part.words["MJKL0_SA1"] == [(1000, 1600, "a"), (1500, 2000, "b")]
    assert (part.spk2gender, part.spk2dialect) == ({"MJKL0": "m"}, {"MJKL0": "DR1"})
    heights = {speaker: height for one in data.values() for speaker, height in one.spk2height_cm.items()}
    assert heights == {"FABC0": 167.6, "MDEF0": 188.0, "FGHI1": 180.3, "MJKL0": 152.4}
    lines = result.stdout.splitlines()
    assert lines[2] == (
        "test: 3 utterances, 0.000 hours, mean length 0.21 s, 1 speakers (1 m), 0 of them also in train"
    )


@pytest.mark.parametrize("by", ["utterance", "speaker"])
def test_the_usual_share_for_validation_leaves_something_for_training(corpus, tmp_path, by):
    shutil.rmtree(corpus / "TRAIN/DR2/FGHI1")
    assert run(corpus, tmp_path / "out", "--valid_by", by).returncode == 0
    data = load_data_dir(tmp_path / "out/valid")
    assert len(data.utt2spk) == {"utterance": 1, "speaker": 3}[by] and load_data_dir(tmp_path / "out/train").utt2spk
    shutil.rmtree(corpus / "TRAIN/DR2")
    result = run(corpus, tmp_path / "out", "--valid_by", "speaker")
    assert result.returncode == 1
    assert "TRAIN has 1 speakers; expected at least 2, one of them for validation" in result.stderr


def test_validation_set_is_a_fixed_draw(corpus, tmp_path):
    chosen = {}
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert run(corpus, tmp_path / name, "--valid_utterances", "3", "--seed", seed).returncode == 0
        chosen[name] = load_data_dir(tmp_path / name / "valid").utterances
        train = load_data_dir(tmp_path / name / "train").utterances
        assert len(chosen[name]) == 3 and len(train) == 6 and not set(train) & set(chosen[name])
    assert chosen["a"] == chosen["b"] != chosen["c"]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_sa_sentences_are_kept_unless_told(corpus, tmp_path):
    assert run(corpus, tmp_path / "keep").returncode == 0
    result = run(corpus, tmp_path / "drop", "--sa", "drop")
    assert "SA1 and SA2 left out" in result.stdout
    names = {
        what: [u for s in SETS for u in load_data_dir(tmp_path / what / s).utterances] for what in ("keep", "drop")
    }
    assert len(names["keep"]) == 12
    assert names["drop"] and len(names["drop"]) == 8 and not any("SA" in name for name in names["drop"])


def test_other_counts_are_a_warning(corpus, tmp_path):
    result = run(corpus, tmp_path)
    assert result.returncode == 0
    assert result.stderr == "warning: 9 utterances in TRAIN and 3 in TEST; expected 4620 and 1680\n"


HOME, OTHER = "TRAIN/DR1/FABC0", "TRAIN/DR2/MDEF0"


def edit(name: str, old: str, new: str):
    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    return change


def replace(name: str, content: bytes):
    return lambda root: (root / name).write_bytes(content)


def remove(name: str):
    return lambda root: (root / name).unlink()


FAULTS = {
    "overlap": (edit(f"{HOME}/SA1.PHN", "1000 2000", "999 2000"),
                f"{HOME}/SA1.PHN:2: 'ax' starts at 999, before the end at 1000 of the one above"),
    "gap": (edit(f"{HOME}/SA1.PHN", "1000 2000", "1010 2000"),
            f"{HOME}/SA1.PHN:2: 'ax' starts at 1010, after the end at 1000 of the one above; correct the times"),
    "gap in front": (edit(f"{HOME}/SA1.PHN", "0 1000", "5 1000"), f"{HOME}/SA1.PHN:1: 'h#' starts at 5, after the end"),
    "unknown phone": (edit(f"{HOME}/SA1.PHN", "2000 ax", "2000 AX"),
                      f"{HOME}/SA1.PHN:2: unknown phone 'AX'; expected one of the corpus's 61 codes"),
    "no number": (edit(f"{HOME}/SA1.PHN", "1000 2000", "1e3 2000"),
                  f"{HOME}/SA1.PHN:2: times '1e3' and '2000'; expected whole sample numbers"),
    "negative": (edit(f"{HOME}/SA1.WRD", "1000 1600", "-1 1600"), f"{HOME}/SA1.WRD:1: times '-1' and '1600'"),
    "columns": (edit(f"{HOME}/SA1.PHN", "2000 ax", "2000"), f"{HOME}/SA1.PHN:2: 2 columns; expected 'start end label'"),
    "end before start": (edit(f"{HOME}/SA1.WRD", "1500 2000", "1500 1400"),
                         f"{HOME}/SA1.WRD:2: 'b' ends at 1400, before its start at 1500"),
    "past the end": (edit(f"{HOME}/SA1.PHN", "2000 3000", "2000 3161"),
                     f"{HOME}/SA1.PHN:3: 'h#' ends at 3161, 161 samples past the audio's 3000; expected at most 160"),
    "words past the end": (edit(f"{HOME}/SA1.WRD", "1500 2000", "1500 9000"), f"{HOME}/SA1.WRD:2: 'b' ends at 9000"),
    "text": (edit(f"{HOME}/SA1.TXT", "0 3000 ", ""), f"{HOME}/SA1.TXT:1: expected 'start end text'"),
    "no audio": (remove(f"{HOME}/SA1.WAV"), f"{HOME}/SA1.WAV: no such file"),
    "empty audio": (replace(f"{HOME}/SA1.WAV", b""), f"{HOME}/SA1.WAV: empty file"),
    "no samples": (replace(f"{HOME}/SA1.WAV", sphere(np.zeros(0))), f"{HOME}/SA1.WAV: no samples"),
    "cut audio": (replace(f"{HOME}/SA1.WAV", sphere(np.zeros(3000))[:-10]), "header says 3000 samples, found 2995"),
    "8 kHz": (replace(f"{HOME}/SA1.WAV", sphere(np.zeros(3000)).replace(b"16000", b"08000")),
              "sampling rate 8000 Hz; expected 16000 Hz"),
    "shorten": (replace(f"{HOME}/SA1.WAV", sphere(np.zeros(3000)).replace(
        b"end_head", b"sample_coding -s26 pcm,embedded-shorten-v2.00\nend_head")), "sph2pipe -f wav "),
    "other audio": (lambda root: write_wav(root / f"{HOME}/SA1.WAV.wav", np.ones(3000, np.int16), 16000),
                    "SA1.WAV.wav: other samples than "),
    "label file twice": (lambda root: shutil.copy(root / f"{HOME}/SA1.PHN", root / f"{HOME}/sa1.phn"),
                         f"{HOME}/sa1.phn: the same file as "),
    "speaker in both": (lambda root: shutil.copytree(root / HOME, root / "TEST/DR1/FABC0"),
                        "TEST/DR1/FABC0: speaker FABC0 is also in "),
    "speaker twice": (lambda root: shutil.copytree(root / HOME, root / "TRAIN/DR2/fabc0"),
                      "TRAIN/DR2/fabc0: speaker FABC0 is also in "),
    "nobody in TEST": (lambda root: shutil.rmtree(root / "TEST/DR1"), "9 utterances in TRAIN and 0 in TEST"),
}  # fmt: skip


@pytest.mark.parametrize("change,message", FAULTS.values(), ids=FAULTS)
def test_faults_stop_with_file_and_line_and_nothing_written(corpus, tmp_path, change, message):
    change(corpus)
    result = run(corpus, tmp_path / "out", "--expected", "9", "3")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ") and message in last, result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "out/train").exists()


def test_all_faults_are_listed(corpus, tmp_path):
    edit(f"{HOME}/SA1.PHN", "1000 2000", "999 2000")(corpus)
    edit(f"{OTHER}/SX12.PHN", "1000 2000", "x 2000")(corpus)
    remove(f"{OTHER}/SA1.WAV")(corpus)
    result = run(corpus, tmp_path / "out")
    assert result.stderr.count("error: ") == 3
    assert result.stderr.strip().endswith("(3 errors in total; nothing was written)")


WARNINGS = {
    "end 160 past": (edit(f"{HOME}/SA1.PHN", "2000 3000", "2000 3160"),
                     "1 .PHN files end up to 160 samples past the audio and were cut there: FABC0_SA1"),
    "nothing left past the end": (edit(f"{HOME}/SA1.PHN", "2000 3000 h#", "2000 3000 h#\n3000 3100 h#"),
                                  "1 segments of .PHN files have no samples and were left out: "),
    "no phones": (remove(f"{HOME}/SA1.PHN"), "1 utterances have no .PHN file: FABC0_SA1"),
    "no words": (remove(f"{HOME}/SA1.WRD"), "1 utterances have no .WRD file: FABC0_SA1"),
    "no text": (remove(f"{HOME}/SA1.TXT"), "1 utterances have no .TXT file: FABC0_SA1"),
    "empty phones": (replace(f"{HOME}/SA1.PHN", b""), "1 .PHN files are empty: "),
    "speaker unknown": (edit("DOC/SPKRINFO.TXT", "JKL0", "XYZ0"),
                        "1 speakers are not in SPKRINFO.TXT (analyses of gender and height will lack them): MJKL0"),
    "no table": (remove("DOC/SPKRINFO.TXT"), "4 speakers are not in SPKRINFO.TXT, which is not there"),
    "no height": (edit("DOC/SPKRINFO.TXT", "6'02\"", "?"),
                  "1 speakers have no height in SPKRINFO.TXT (its analysis will lack them): MDEF0"),
    "length": (edit(f"{HOME}/SA1.TXT", "0 3000", "0 3001"),
               "1 audio files have not the number of samples that their .TXT file says: FABC0_SA1"),
    "foreign file": (replace(f"{HOME}/notes.doc", b""), "1 files are not of an utterance and were left out: "),
    "same audio twice": (lambda root: shutil.copy(root / f"{HOME}/SA1.WAV", root / f"{HOME}/sa1.wav"),
                         "1 utterances have the same audio in two files: FABC0_SA1"),
}  # fmt: skip


def test_so_many_bad_audio_files_as_allowed_are_left_out(corpus, tmp_path):
    first, second = sorted(corpus.rglob("*.WAV"))[:2]
    first.write_bytes(b"")
    second.unlink()
    assert run(corpus, tmp_path / "out", "--max_bad", "1").returncode == 1
    result = run(corpus, tmp_path / "out", "--max_bad", "2", "--expected", "7", "3")
    assert result.returncode == 0, result.stderr
    assert "2 audio files cannot be used and were left out" in result.stderr
    assert (tmp_path / "out/rejected.tsv").read_text().splitlines() == sorted([
        f"{first}\t{first}: empty file; copy the file again from its source",
        f"{second}\t{second}: no such file; copy it again from the corpus",
    ])  # fmt: skip
    sets = [load_data_dir(tmp_path / "out" / name) for name in SETS]
    assert sum(len(data.utt2spk) for data in sets) == 10
    assert json.loads((tmp_path / "out/test" / PREPARATION).read_text())["rejected"] == 2


@pytest.mark.parametrize("change,message", WARNINGS.values(), ids=WARNINGS)
def test_what_is_tolerated_is_counted(corpus, tmp_path, change, message):
    change(corpus)
    result = run(corpus, tmp_path / "out", "--expected", "9", "3")
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith(f"warning: {message}") and result.stderr.count("\n") == 1
    assert all(validate(tmp_path / "out" / name) == [] for name in SETS)


def test_last_end_short_of_the_audio_is_right(corpus, tmp_path):
    edit(f"{HOME}/SA1.PHN", "2000 3000", "2000 2500")(corpus)
    assert run(corpus, tmp_path / "out", "--expected", "9", "3").stderr == ""


def test_lost_bytes_are_told(corpus, tmp_path):
    path = corpus / HOME / "SA1.WAV"
    samples = np.rint(3000 * np.sin(np.arange(3000) / 20)).astype("<i2").tobytes()
    path.write_bytes(sphere(np.frombuffer(samples[:999] + samples[1000:] + b"\0", "<i2")))
    result = run(corpus, tmp_path / "out", "--expected", "9", "3")
    assert result.returncode == 0 and "full-scale noise where bytes were lost" in result.stderr


def test_gender_is_never_guessed(corpus, tmp_path):
    edit("DOC/SPKRINFO.TXT", "JKL0  M", "JKL0  x")(corpus)
    result = run(corpus, tmp_path / "out", "--expected", "9", "3")
    assert result.returncode == 0
    missing = "speakers are not in SPKRINFO.TXT (analyses of gender and height will lack them)"
    assert result.stderr == f"warning: 1 {missing}: MJKL0\n"
    assert load_data_dir(tmp_path / "out/test").spk2gender == {}


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--valid_utterances", "9"], "--valid_utterances 9: expected 1 to 8"),
        (["--valid_utterances", "0"], "--valid_utterances 0: expected 1 to 8"),
        (["--valid_by", "speaker", "--valid_speakers", "3"], "--valid_speakers 3: expected 1 to 2"),
        (["--valid_by", "nobody"], "invalid choice"),
        (["--sa", "maybe"], "invalid choice"),
        (["--seed", "x"], "invalid int"),
    ],
)
def test_wrong_usage(corpus, tmp_path, arguments, message):
    result = run(corpus, tmp_path / "out", *arguments)
    assert result.returncode == 2 and message in result.stderr.splitlines()[-1] and "usage:" not in result.stderr
    assert not (tmp_path / "out/train").exists()


def test_as_a_command(corpus, tmp_path):
    command = [sys.executable, PROGRAM, "--corpus", corpus, "--out", tmp_path / "out"]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0 and result.stdout.startswith("train: 8 utterances")


def test_wrong_root_says_what_was_looked_for(tmp_path):
    (tmp_path / "x/TIMIT/TRAIN").mkdir(parents=True)
    result = run(tmp_path / "x", tmp_path / "out")
    assert result.returncode == 1
    assert result.stderr == (
        f"error: {tmp_path}/x: no corpus in TIMIT's layout; looked for directories TRAIN and TEST (in any case), "
        "side by side in it or in up to 8 folders; give the directory that holds both\n"
    )
    assert "no such directory" in run(tmp_path / "none", tmp_path / "out").stderr


def test_two_copies_are_told(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "in/a")
    shutil.copytree(corpus, tmp_path / "in/b")
    result = run(tmp_path / "in", tmp_path / "out")
    place = tmp_path / "in"
    assert result.stderr == f"error: {place}: copies of the corpus in {place}/a and in {place}/b; give one of them\n"


def test_sample_corpus(timit_sample, tmp_path):
    result = run(timit_sample, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "warning: 100 utterances in TRAIN and 20 in TEST; expected 4620 and 1680" in result.stderr
    counts = {name: len(load_data_dir(tmp_path / name).utterances) for name in SETS}
    assert counts == {"train": 95, "valid": 5, "test": 20}
    test = load_data_dir(tmp_path / "test")
    assert test.spk2gender == {"FAPB0": "f", "MBMA1": "m"}
    assert test.spk2height_cm == {"FAPB0": 165.1, "MBMA1": 188.0}
    assert test.text["FAPB0_SA1"] == "She had your dark suit in greasy wash water all year."
    assert test.phones["FAPB0_SA1"][:2] == [(0, 2198, "h#"), (2198, 4010, "sh")]
    assert all(validate(tmp_path / name) == [] for name in SETS)
