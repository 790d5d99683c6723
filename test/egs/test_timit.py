"""TIMIT: every variant of the layout gives the same sets, errors are named by file and line; its configurations."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from imitations.timit import make, sphere
from programs import call, load

from speechlvm.data.audio import write_wav
from speechlvm.data.corpora.preparation import PREPARATION
from speechlvm.data.kaldi.directory import load_data_dir
from speechlvm.experiment.config import load_config
from speechlvm.reporting.tables import load_tables

RECIPE = Path(__file__).resolve().parents[2] / "egs/timit"
SETS = ("train", "valid", "test")

prepare = load(RECIPE / "local/prepare.py")


@pytest.fixture
def corpus(tmp_path) -> Path:
    return make(tmp_path / "corpus of mine")


def run(corpus: Path, out: Path, *arguments: str):
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


def to_riff(root: Path, ending: str, keep: bool = False) -> None:
    for path in list(root.rglob("*.WAV")):
        samples = np.frombuffer(path.read_bytes()[1024:], "<i2")
        if not keep:
            path.unlink()
        if ending == ".flac":
            soundfile.write(path.with_name(path.stem + ending), samples, 16000)
        else:
            write_wav(path.with_name(path.stem + ending), samples, 16000)


VARIANTS = {
    "lower case": lambda root: rename_all(root, str.lower) or root,
    "mixed case": lambda root: rename_all(root, str.capitalize) or root,
    "RIFF": lambda root: to_riff(root, ".WAV") or root,
    ".flac and .mp3": lambda root: to_riff(root, ".flac") or (root / f"{HOME}/SA1.mp3").write_bytes(b"x") and root,
    ".WAV.wav only": lambda root: to_riff(root, ".WAV.wav") or root,
    ".WAV.wav beside .WAV": lambda root: to_riff(root, ".WAV.wav", True) or root,
    "far above": lambda root: shutil.copytree(root, root.parent / "in/timit/data/lisa/data/timit/raw/TIMIT").parents[5],
    "a part": lambda root: root / "TEST",
    "files of the system": lambda root: (root / f"{HOME}/._SA1.WAV").write_bytes(b"x") and root,
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_all_variants_of_the_layout_give_the_same(corpus, tmp_path, variant):
    assert run(corpus, tmp_path / "expected").returncode == 0
    result = run(variant(corpus), tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_what_is_written(corpus, tmp_path):
    result = run(corpus, tmp_path, "--valid_by", "speaker", "--valid_speakers", "1", "--expected", "9", "3")
    assert result.returncode == 0 and result.stderr == ""
    data = {name: load_data_dir(tmp_path / name) for name in SETS}
    train, valid, test = (set(data[name].utt2spk.values()) for name in SETS)
    assert len(train) == 2 and len(valid) == 1 and test == {"MJKL0"} and not train & valid
    part = data["test"]
    assert part.utterances == ["MJKL0_SA1", "MJKL0_SI1034", "MJKL0_SX12"]
    assert part.num_samples == {"MJKL0_SA1": 3300, "MJKL0_SX12": 3301, "MJKL0_SI1034": 3302}
    assert part.text["MJKL0_SA1"] == "A b, MJKL0."
    assert part.phones["MJKL0_SA1"] == [(0, 1000, "h#"), (1000, 2000, "ax"), (2000, 3300, "h#")]
    assert part.words["MJKL0_SA1"] == [(1000, 1600, "a"), (1500, 2000, "b")]
    assert (part.spk2gender, part.spk2dialect) == ({"MJKL0": "m"}, {"MJKL0": "DR1"})
    heights = {speaker: height for one in data.values() for speaker, height in one.spk2height_cm.items()}
    assert heights == {"FABC0": 167.6, "MDEF0": 188.0, "FGHI1": 180.3, "MJKL0": 152.4}
    assert result.stdout.splitlines()[2] == (
        "test: 3 utterances, 0.000 hours, mean length 0.21 s, 1 speaker (1 m), 0 of them also in train"
    )
    warned = run(corpus, tmp_path / "of the full corpus").stderr
    assert warned == "warning: 9 utterances in TRAIN and 3 in TEST; expected 4620 and 1680\n"


@pytest.mark.parametrize("by", ["utterance", "speaker"])
def test_the_usual_share_for_validation_leaves_something_for_training(corpus, tmp_path, by):
    shutil.rmtree(corpus / "TRAIN/DR2/FGHI1")
    assert run(corpus, tmp_path / "out", "--valid_by", by).returncode == 0
    data = load_data_dir(tmp_path / "out/valid")
    assert len(data.utt2spk) == {"utterance": 1, "speaker": 3}[by] and load_data_dir(tmp_path / "out/train").utt2spk


def test_validation_set_is_a_fixed_draw(corpus, tmp_path):
    chosen = {}
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert run(corpus, tmp_path / name, "--valid_utterances", "3", "--seed", seed).returncode == 0
        chosen[name] = load_data_dir(tmp_path / name / "valid").utterances
        train = load_data_dir(tmp_path / name / "train").utterances
        assert len(chosen[name]) == 3 and len(train) == 6 and not set(train) & set(chosen[name])
    assert chosen["a"] == chosen["b"] != chosen["c"]


def test_sa_sentences_are_left_out_when_told(corpus, tmp_path):
    assert "SA1 and SA2 left out" in run(corpus, tmp_path, "--sa", "drop").stdout
    names = [utterance for name in SETS for utterance in load_data_dir(tmp_path / name).utterances]
    assert len(names) == 8 and not any("SA" in name for name in names)


HOME = "TRAIN/DR1/FABC0"
LOST = np.rint(3000 * np.sin(np.arange(3000) / 20)).astype("<i2").tobytes()


def edit(name: str, old: str, new: str):
    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    return change


def phones(old: str, new: str):
    return edit(f"{HOME}/SA1.PHN", old, new)


def replace(name: str, content: bytes):
    return lambda root: (root / name).write_bytes(content)


def remove(name: str):
    return lambda root: (root / name).unlink()


FAULTS = {
    "SA1.PHN:2: 'ax' starts at 999, before the end at 1000 of the one above": phones("1000 2000", "999 2000"),
    "SA1.PHN:2: 'ax' starts at 1010, after the end at 1000 of the one above": phones("1000 2000", "1010 2000"),
    "SA1.PHN:1: 'h#' starts at 5, after the end": phones("0 1000", "5 1000"),
    "SA1.PHN:2: unknown phone 'AX'; expected one of the corpus's 61 codes": phones("2000 ax", "2000 AX"),
    "SA1.PHN:2: times '1e3' and '2000'; expected whole sample numbers": phones("1000 2000", "1e3 2000"),
    "SA1.PHN:2: 2 columns; expected 'start end label'": phones("2000 ax", "2000"),
    "SA1.PHN:3: 'h#' ends at 3161, 161 samples past the audio's 3000; expected at most 160": phones("3000", "3161"),
    "SA1.WRD:1: times '-1' and '1600'": edit(f"{HOME}/SA1.WRD", "1000 1600", "-1 1600"),
    "SA1.WRD:2: 'b' ends at 1400, before its start at 1500": edit(f"{HOME}/SA1.WRD", "1500 2000", "1500 1400"),
    "SA1.WRD:2: 'b' ends at 9000": edit(f"{HOME}/SA1.WRD", "1500 2000", "1500 9000"),
    "SA1.TXT:1: expected 'start end text'": edit(f"{HOME}/SA1.TXT", "0 3000 ", ""),
    "SA1.WAV: no such file": remove(f"{HOME}/SA1.WAV"),
    "sampling rate 8000 Hz; expected 16000 Hz": replace(
        f"{HOME}/SA1.WAV", sphere(np.zeros(3000)).replace(b"16000", b"08000")
    ),
    "SA1.WAV.wav: other samples than ": lambda root: write_wav(
        root / f"{HOME}/SA1.WAV.wav", np.ones(3000, np.int16), 16000
    ),
    "sa1.phn: the same file as ": lambda root: shutil.copy(root / f"{HOME}/SA1.PHN", root / f"{HOME}/sa1.phn"),
    "TEST/DR1/FABC0: speaker FABC0 is also in ": lambda root: shutil.copytree(root / HOME, root / "TEST/DR1/FABC0"),
    "TRAIN/DR2/fabc0: speaker FABC0 is also in ": lambda root: shutil.copytree(root / HOME, root / "TRAIN/DR2/fabc0"),
    "9 utterances in TRAIN and 0 in TEST": lambda root: shutil.rmtree(root / "TEST/DR1"),
}


@pytest.mark.parametrize(("message", "change"), FAULTS.items(), ids=FAULTS)
def test_faults_stop_with_file_and_line_and_nothing_written(corpus, tmp_path, change, message):
    change(corpus)
    result = run(corpus, tmp_path / "out", "--expected", "9", "3")
    assert result.returncode == 1 and message in result.stderr.splitlines()[-1], result.stderr
    assert not (tmp_path / "out/train").exists()


WARNINGS = {
    ".PHN files end up to 160 samples past the audio and were cut there: FABC0_SA1": phones("2000 3000", "2000 3160"),
    "segments of .PHN files have no samples and were left out: ": phones("3000 h#", "3000 h#\n3000 3100 h#"),
    "utterances have no .PHN file: FABC0_SA1": remove(f"{HOME}/SA1.PHN"),
    "utterances have no .WRD file: FABC0_SA1": remove(f"{HOME}/SA1.WRD"),
    "utterances have no .TXT file: FABC0_SA1": remove(f"{HOME}/SA1.TXT"),
    ".PHN files are empty: ": replace(f"{HOME}/SA1.PHN", b""),
    "speakers are not in SPKRINFO.TXT (analyses of gender and height will lack them): MJKL0": edit(
        "DOC/SPKRINFO.TXT",
        "JKL0  M",
        "JKL0  x",  # a sex is never guessed
    ),
    "4 speakers are not in SPKRINFO.TXT, which is not there": remove("DOC/SPKRINFO.TXT"),
    "speakers have no height in SPKRINFO.TXT (its analysis will lack them): MDEF0": edit(
        "DOC/SPKRINFO.TXT", "6'02\"", "?"
    ),
    "audio files have not the number of samples that their .TXT file says: FABC0_SA1": edit(
        f"{HOME}/SA1.TXT", "0 3000", "0 3001"
    ),
    "audio files hold full-scale noise where bytes were lost": replace(
        f"{HOME}/SA1.WAV", sphere(np.frombuffer(LOST[:999] + LOST[1000:] + b"\0", "<i2"))
    ),
    "files are not of an utterance and were left out: ": replace(f"{HOME}/notes.doc", b""),
    "utterances have the same audio in two files: FABC0_SA1": lambda root: shutil.copy(
        root / f"{HOME}/SA1.WAV", root / f"{HOME}/sa1.wav"
    ),
    "": phones("2000 3000", "2000 2500"),  # an end short of the audio's is right
}


@pytest.mark.parametrize(("message", "change"), WARNINGS.items(), ids=WARNINGS)
def test_what_is_tolerated_is_counted(corpus, tmp_path, change, message):
    change(corpus)
    result = run(corpus, tmp_path / "out", "--expected", "9", "3")
    assert result.returncode == 0, result.stderr
    assert (result.stderr == "") == (message == "") and result.stderr.count("\n") <= 1
    assert not message or result.stderr.startswith(f"warning: {message}")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--valid_utterances", "9"], 2, "--valid_utterances 9: expected 1 to 8"),
        (["--valid_by", "speaker", "--valid_speakers", "3"], 2, "--valid_speakers 3: expected 1 to 2"),
        (["--valid_by", "nobody"], 2, "invalid choice"),
        (["--valid_by", "speaker"], 1, "TRAIN has 1 speakers; expected at least 2, one of them for validation"),
    ],
)
def test_wrong_usage(corpus, tmp_path, arguments, status, message):
    if status == 1:
        shutil.rmtree(corpus / "TRAIN/DR2")
    result = run(corpus, tmp_path / "out", *arguments)
    assert result.returncode == status and message in result.stderr.splitlines()[-1] and "usage:" not in result.stderr


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


# --- Configurations ---------------------------------------------------------------------------------------------------

CONF = RECIPE / "conf"
TABLES = {table.table: table for table in load_tables(CONF / "tables")}
# What the first lines of configurations call the tables.
PHRASES = {
    "A1": r"source a, table 1\b",
    "A3": r"source a, table 3|source a, table 1 and table 3",
    "A4": r"source a, table 4\b",
    "B1": r"source b, table 1\b",
    "B4b": r"source b, (table 1 and )?figures? 4b\b",
    "B5b": r"source b, figures? (4b and )?5b\b",
    "experts": r"^ours.*table experts\b",
    "levels": r"^table levels\b",
    "ours": r"^ours.*table ours\b",
    "small": r"^table small\b",
    "softmax": r"^ours.*table softmax\b",
    "twins": r"^table twins\b",
}


def conf_of(row):
    return load_config(CONF / f"{row.experiment}.yaml")


def test_a_comment_names_the_tables():
    for path in CONF.glob("*.yaml"):
        first = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").lower()
        named = {name for name, phrase in PHRASES.items() if re.search(phrase, first)}
        assert named == {name for name, table in TABLES.items() for row in table.rows if row.experiment == path.stem}, (
            path
        )


def test_floors_are_the_published_ones():
    floors = {
        row.experiment: conf_of(row).distribution_conf["minimum_std"]
        for table in TABLES.values()
        if table.densities
        for row in table.rows
        if row.experiment
    }
    own = {"wavenet_s1_c96_normal", "cwvae_s200_z96_l1_normal"}
    assert {name for name, floor in floors.items() if floor == 0.01} == own
    # source B's systems have no floor; STCN's authors, whose WaveNets have 256 channels, have one
    assert {floor for name, floor in floors.items() if "stcn" in name or "_c256_" in name} == {0.001}
    rest = {name for name in floors if name not in own and "stcn" not in name and "_c256_" not in name}
    assert {floors[name] for name in rest} == {0.0} and len(rest) == 5 + 6 + 6


def test_the_sweeps_are_those_of_the_figures():
    confs = {name: [conf_of(row).model_conf for row in TABLES[name].rows] for name in ("B4b", "B5b")}
    assert [conf["stochastic_layers"] for conf in confs["B4b"]] == [1, 2, 3, 4, 5]
    assert {(conf["layers"], conf["latent_total"]) for conf in confs["B4b"]} == {(5, 500)}
    assert {(conf["layers"], conf["stochastic_layers"]) for conf in confs["B5b"]} == {(5, 4)}


@pytest.mark.recipe
def test_the_recipe_runs(run_recipe):
    run_recipe("timit", probed=True, again=True)
