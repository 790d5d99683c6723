"""The preparation of Libri-Light's fine-tuning subset, and what its recipe shares with librispeech's."""

import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile
from imitations import librilight
from programs import call, load

from speechlvm.bin.baseline import BASELINES
from speechlvm.data.corpora.download import load_archives
from speechlvm.data.kaldi.directory import load_data_dir
from speechlvm.experiment.config import load_config
from speechlvm.reporting.tables import load_tables

ROOT = Path(__file__).resolve().parents[2]
RECIPE, OTHER = ROOT / "egs/librilight", ROOT / "egs/librispeech"
FIRST_FOLD = {"3526", "831", "4262", "978"}
SECOND_FOLD = {"248", "911", "4959", "1746"}

prepare = load(RECIPE / "local/prepare.py")


def run(place: Path, out: Path, *arguments: str):
    """With both corpora in `place`."""
    return call(prepare.main, "--finetuning", place, "--corpus", place, "--out", out, *arguments)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return librilight.make(tmp_path_factory.mktemp("corpora of mine"), frames=1000).parent


@pytest.fixture
def place(original, tmp_path) -> Path:
    return shutil.copytree(original, tmp_path / "in")


def test_each_training_set_has_the_same_validation(original, tmp_path):
    found = {}
    for hours in ("10h", "1h", "10min"):
        result = run(original, tmp_path / hours, "--hours", hours, "--test_sets", "dev_clean")
        assert result.returncode == 0, result.stderr
        found[hours] = [load_data_dir(tmp_path / hours / name) for name in (f"train_{hours}", "valid", "dev_clean")]
    train, valid, dev = (part for part in found["10h"])
    held_out = set(valid.utt2spk.values())
    assert len(held_out) == 2 and held_out < SECOND_FOLD and sorted(valid.spk2gender.values()) == ["f", "m"]
    assert len(valid.utterances) == 8  # of 1h and of 9h
    assert all(part[1] == valid for part in found.values())
    speakers = {hours: set(part[0].utt2spk.values()) for hours, part in found.items()}
    most = FIRST_FOLD | SECOND_FOLD - held_out
    assert speakers == {"10h": most, "1h": most, "10min": FIRST_FOLD}
    assert {hours: len(part[0].utterances) for hours, part in found.items()} == {"10h": 24, "1h": 12, "10min": 8}
    assert set(found["10min"][0].utterances) < set(found["1h"][0].utterances) < set(train.utterances)
    assert set(dev.utt2spk.values()) == {"84", "174"}


def test_another_folder_above_and_wav(place, tmp_path):
    expected = run(place, tmp_path / "expected")
    assert "warning: 1h: 16 utterances; expected 286; if it should be complete, unpack" in expected.stderr
    assert "warning: 9h: 16 utterances; expected 2477" in expected.stderr
    for path in place.rglob("librispeech_finetuning/**/*.flac"):
        soundfile.write(path.with_suffix(".wav"), *soundfile.read(path, dtype="int16"))
        path.unlink()
    (tmp_path / "far/above").mkdir(parents=True)
    place.rename(tmp_path / "far/above/in")
    result = run(tmp_path / "far", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    for name in ("utt2spk", "text"):
        files = [tmp_path / out / "train_10h" / name for out in ("expected", "out")]
        assert files[0].read_text() == files[1].read_text() != ""


def test_transcripts_of_a_chapter_in_two_parts(original, tmp_path):
    assert run(original, tmp_path).returncode == 0
    train = load_data_dir(tmp_path / "train_10h")
    assert set(train.text) == set(train.utterances)
    assert [str(train.wav[f"831-175659-000{n}"].relative_to(original)) for n in (1, 2)] == [
        "librispeech_finetuning/1h/0/clean/831/175659/831-175659-0001.flac",
        "librispeech_finetuning/9h/clean/831/175659/831-175659-0002.flac",
    ]


FIRST = "librispeech_finetuning/1h/0/clean/831/175659/831-175659-0000.flac"


def copy(source: str, target: str):
    def change(place: Path) -> None:
        (place / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(place / source, place / target)

    return change


def remove(*names: str):
    return lambda place: [shutil.rmtree(path) for name in names for path in place.glob(name)]


FAULTS = {
    "9h/clean/831/175659/831-175659-0000.flac: the same utterance as ": copy(FIRST, FIRST.replace("1h/0", "9h")),
    "speaker 116 is in librispeech_finetuning and in dev-other; no set shares speakers": lambda place: shutil.copytree(
        place / "LibriSpeech/dev-other/116", place / "librispeech_finetuning/9h/other/116"
    ),
    "lacks 9h; unpack librispeech_finetuning.tgz there (stage 0 does)": remove("librispeech_finetuning/9h"),
    "lacks 1h/0; unpack ": remove("librispeech_finetuning/1h/0"),
    "test-other missing, 3 of 4 sets are there; run stage 0": remove("LibriSpeech/test-other"),
    "SPEAKERS.TXT: no such file": lambda place: (place / "LibriSpeech/SPEAKERS.TXT").unlink(),
    "valid: no utterances are left for this set": remove(*(f"librispeech_finetuning/**/{s}" for s in SECOND_FOLD)),
}


@pytest.mark.parametrize(("message", "change"), FAULTS.items(), ids=FAULTS)
def test_faults_stop_and_nothing_is_written(place, tmp_path, change, message):
    change(place)
    result = run(place, tmp_path / "out")
    assert result.returncode == 1 and message in result.stderr.splitlines()[-1], result.stderr
    assert not list((tmp_path / "out").glob("*/utt2spk"))


def test_configurations_differ_from_librispeech_only_in_how_long_they_train():
    names = sorted(path.name for path in RECIPE.glob("conf/*.yaml"))
    assert names == sorted(path.name for path in OTHER.glob("conf/*.yaml"))
    for name in names:
        ours, theirs = (load_config(recipe / "conf" / name) for recipe in (RECIPE, OTHER))
        assert ours.frozen() == theirs.frozen() and ours.limits.epochs == 10 * theirs.limits.epochs


def test_both_recipes_show_the_same_table():
    [ours], [theirs] = (load_tables(recipe / "conf/tables") for recipe in (RECIPE, OTHER))
    roots = {"": "../librilight/exp/train_10h", "../librispeech/exp/train_clean_100": ""}
    rows = []
    for row in ours.rows:
        trained = row.experiment not in BASELINES
        rows.append(row.model_copy(update={"root": roots[row.root] if trained else ""}))
    assert rows == theirs.rows
    assert ours.model_dump(exclude={"rows", "train_set"}) == theirs.model_dump(exclude={"rows", "train_set"})
    assert (ours.train_set, theirs.train_set) == ("train_10h", "train_clean_100")


def test_download_of_what_is_there_is_a_no_op(original):
    [archive] = load_archives(RECIPE / "local/archives.yaml").archives
    assert archive.file == prepare.ARCHIVE and archive.content == "librispeech_finetuning"
    command = ["bash", "local/download.sh", "--finetuning", str(original), "--corpus", str(original)]
    done = subprocess.run([*command, "--sets", "dev_clean test_other"], cwd=RECIPE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"corpus: {original} contains the fine-tuning subset",
        f"corpus: {original} contains dev-clean test-other",
    ]


@pytest.mark.recipe
def test_the_recipe_runs(run_recipe):
    run_recipe("librilight")
