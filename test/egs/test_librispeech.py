"""LibriSpeech's preparation, its configurations and its table; bad input is named by file and line."""

import os
import shutil
import sys
from pathlib import Path
from subprocess import run as start

import numpy as np
import pytest
import soundfile
from imitations import librispeech
from programs import call, load

from speechlvm.bin.baseline import BASELINES
from speechlvm.data.corpora.download import load_archives
from speechlvm.data.kaldi.directory import load_data_dir
from speechlvm.experiment.config import load_config
from speechlvm.reporting.tables import load_tables

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs/librispeech"
TESTS = ("dev_clean", "dev_other", "test_clean", "test_other")
SETS = ("train_clean_100", "valid_clean_100", *TESTS)

prepare = load(RECIPE / "local/prepare.py")


def run(corpus: Path, out: Path, *arguments: str):
    return call(prepare.main, "--corpus", corpus, "--out", out, *arguments)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return librispeech.make(tmp_path_factory.mktemp("corpus of mine"), frames=1000)


@pytest.fixture
def corpus(original, tmp_path) -> Path:
    return shutil.copytree(original, tmp_path / "in/LibriSpeech")


def test_what_is_written(original, tmp_path):
    result = run(original, tmp_path)
    assert result.returncode == 0, result.stderr
    data = {name: load_data_dir(tmp_path / name) for name in SETS}
    assert {name: sorted(set(part.utt2spk.values())) for name, part in data.items()} == {
        "train_clean_100": ["19", "26", "27", "32"],
        "valid_clean_100": ["5652", "6081"],
        "dev_clean": ["174", "84"],
        "dev_other": ["116", "700"],
        "test_clean": ["121", "61"],
        "test_other": ["1688", "367"],
    }
    part = data["valid_clean_100"]
    assert part.num_samples["5652-128106-0001"] == 1160
    assert part.text["5652-128106-0000"] == "THE SEA WAS CALM"
    assert part.spk2gender == {"5652": "f", "6081": "m"}
    assert part.wav["5652-128106-0000"] == original / "train-clean-100/5652/128106/5652-128106-0000.flac"
    line = result.stdout.splitlines()[1]
    assert line.startswith("valid_clean_100: 4 utterances, ")
    assert line.endswith("2 speakers (1 f, 1 m), 0 of them also in train")
    # counts are compared with the corpus
    for name, expected in {"train-clean-100": 28539, "dev-clean": 2703, "dev-other": 2864}.items():
        found = 12 if name.startswith("train") else 4
        warning = f"warning: {name}: {found} utterances; expected {expected}; if it should be complete, unpack "
        assert warning in result.stderr
    missing = "10 speakers of valid_speakers.txt are not in train-clean-100: 730, 1183, 2911, 4859, 5867, ..."
    assert missing in result.stderr


def test_a_piece_without_the_listed_speakers_has_a_validation_set(corpus, tmp_path):
    for speaker in ("5652", "6081"):
        shutil.rmtree(corpus / "train-clean-100" / speaker)
    result = run(corpus, tmp_path / "out", "--test_sets", "dev_clean")
    assert result.returncode == 0, result.stderr
    drawn = "2 speakers were drawn for validation, as none of valid_speakers.txt is in train-clean-100: "
    assert drawn in result.stderr
    valid, train = (load_data_dir(tmp_path / "out" / name) for name in ("valid_clean_100", "train_clean_100"))
    assert sorted(valid.spk2gender.values()) == ["f", "m"] and len(set(train.utt2spk.values())) == 2


def test_mini_holds_out_a_woman_and_a_man(original, tmp_path):
    assert run(original, tmp_path, "--subset", "mini").returncode == 0
    data = {name: load_data_dir(tmp_path / name) for name in ("train_clean_5", "valid_clean_5", "dev_clean_2")}
    train, valid, test = (set(part.utt2spk.values()) for part in data.values())
    assert len(train) == 2 and train | valid == {"19", "1088", "26", "1867"} and test == {"84", "174"}
    assert sorted(data["valid_clean_5"].spk2gender.values()) == ["f", "m"]
    assert not (tmp_path / "train_clean_100").exists()


def test_a_draw_depends_on_no_other_speaker():
    sexes = {str(number): "fm"[number % 2] for number in range(20)}
    drawn = prepare.draw_speakers(sexes, sexes, 6)
    assert sorted(sexes[speaker] for speaker in drawn) == list("fffmmm")
    assert prepare.draw_speakers(drawn | {"0", "1"}, sexes, 6) == drawn
    assert prepare.draw_speakers({"1", "3"}, sexes, 6) == {"1", "3"}


def test_listed_speakers_are_balanced_and_in_the_drawn_order():
    lines = [line.split() for line in prepare.VALID_SPEAKERS.read_text().splitlines() if not line.startswith("#")]
    sexes = dict(lines)
    assert prepare.listed_speakers() == set(sexes) and len(sexes) == 12
    assert [sexes[speaker] for speaker in list(sexes)] == ["f"] * 6 + ["m"] * 6
    # the first of each sex are those that a smaller draw takes
    assert prepare.draw_speakers(sexes, sexes, 2) == {"5652", "6081"}


def test_only_the_named_test_sets_are_needed(corpus, tmp_path):
    for name in ("dev-other", "test-clean", "test-other"):
        shutil.rmtree(corpus / name)
    result = run(corpus, tmp_path / "out")
    assert result.returncode == 1
    assert result.stderr == (
        f"error: {corpus}: dev-other, test-clean, test-other missing, 2 of 5 sets are there; run stage 0, which "
        "fetches dev-other.tar.gz, test-clean.tar.gz, test-other.tar.gz, or leave test sets out with --test_sets\n"
    )
    assert run(corpus, tmp_path / "out", "--test_sets", "dev_clean").returncode == 0
    sets = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert sets == ["dev_clean", "train_clean_100", "valid_clean_100"]


PLACES = {
    "far above": lambda corpus: shutil.move(corpus, corpus.parent / "a/b/c/d/Libri/LibriSpeech") and corpus.parent,
    "a set": lambda corpus: corpus / "dev-clean",
    "WAV": lambda corpus: wav(corpus) or corpus,
    "lower case table": lambda corpus: (corpus / "SPEAKERS.TXT").rename(corpus / "speakers.txt") and corpus,
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_places_that_are_found(corpus, tmp_path, place):
    result = run(place(corpus), tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert len(load_data_dir(tmp_path / "out/train_clean_100").utterances) == 8


HOME = "train-clean-100/19/128104"
FIRST = f"{HOME}/19-128104-0000.flac"
TEXT = f"{HOME}/19-128104.trans.txt"


def edit(name: str, old: str, new: str):
    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    return change


def cut(count: int):
    return lambda root: (root / FIRST).write_bytes((root / FIRST).read_bytes()[:-count])


def flac(samples: np.ndarray, subtype: str = "PCM_16"):
    return lambda root: soundfile.write(root / FIRST, samples, 16000, subtype=subtype)


def wav(root: Path) -> None:
    for path in root.rglob("*.flac"):
        soundfile.write(path.with_suffix(".wav"), *soundfile.read(path, dtype="int16"))
        path.unlink()


FAULTS = {
    f"{FIRST}: damaged or truncated FLAC, sample 1000 cannot be read": cut(1),
    f"{FIRST}: damaged or truncated FLAC, sample 20000 cannot be read": lambda root: (
        flac(librispeech.noise(1, 20000))(root),
        cut(100)(root),
    ),
    f"{FIRST}: 24-bit samples; expected 16-bit PCM": flac(np.zeros(99), subtype="PCM_24"),
    f"{FIRST[:-5]}.mp3: lossy compression, so its samples differ from those of the corpus": lambda root: (
        root / FIRST
    ).rename((root / FIRST).with_suffix(".mp3")),
    f"{HOME}/26-128107-0009.flac: an utterance of speaker 26, chapter 128107; move it there": lambda root: (
        root / FIRST
    ).rename(root / HOME / "26-128107-0009.flac"),
    f"{TEXT}:1: 19-128105-0000 is not of chapter 19-128104; move the line": edit(TEXT, "128104-0000", "128105-0000"),
    f"{TEXT}:2: '19-128104-0001'; expected an utterance of 19-128104 and its text": edit(
        TEXT, "0001 SEA WAS CALM AND", "0001"
    ),
    f"{TEXT}:2: 19-128104-0000 has a transcript in line 1 already": edit(TEXT, "128104-0001", "128104-0000"),
    f"{TEXT}: its byte order mark says utf-16": lambda root: (root / TEXT).write_bytes(b"\xff\xfea"),
    "speaker 84 is in train-clean-100 and in dev-clean; no set shares speakers": lambda root: shutil.copytree(
        root / "dev-clean/84", root / "train-clean-100/84"
    ),
    "SPEAKERS.TXT:5: '19   F | train-clean-100  | 25.19 | X'; expected 'speaker | F or M | ": edit(
        "SPEAKERS.TXT", "19   | F |", "19   F |"
    ),
    "SPEAKERS.TXT: no such file; copy it from any archive": lambda root: (root / "SPEAKERS.TXT").unlink(),
    "train_clean_100: no utterances are left for this set": lambda root: [
        shutil.rmtree(root / "train-clean-100" / name) for name in ("19", "26", "27", "32")
    ],
}


@pytest.mark.parametrize(("message", "change"), FAULTS.items(), ids=FAULTS)
def test_faults_stop_with_file_and_line_and_nothing_written(corpus, tmp_path, change, message):
    change(corpus)
    result = run(corpus, tmp_path / "out")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ") and message in last, result.stderr
    assert not list((tmp_path / "out").glob("*/utt2spk"))


BETTER = "recordings that also exist in a better container were left out: "
WARNINGS = {
    "transcripts are a placeholder and were left out: 19-128104-0000": edit(
        TEXT, "THE SEA WAS CALM", "TRANSCRIPT NOT AVAILABLE"
    ),
    "chapters have no .trans.txt: ": lambda root: (root / TEXT).unlink(),
    "utterances have no transcript: 19-128104-0000": lambda root: (root / TEXT).write_text("19-128104-0001 SEA\n"),
    "transcripts have no audio file: 19-128104-0000": lambda root: (root / FIRST).unlink(),
    "files are not of a chapter and were left out: ": lambda root: (root / HOME / "._19-128104-0000.flac").write_bytes(
        b"x"
    ),
    f"{BETTER}{{}}/{HOME}/19-128104-0000.wav": lambda root: (root / FIRST).with_suffix(".wav").write_bytes(b"x"),
    f"{BETTER}{{}}/{HOME}/19-128104-0000.mp3": lambda root: (root / FIRST).with_suffix(".mp3").write_bytes(b"x"),
    "entries are not speakers and were left out: ": lambda root: (root / "dev-clean/.complete").write_bytes(b""),
    "entries are not chapters and were left out: ": lambda root: (root / "dev-clean/84/notes.txt").write_bytes(b"x"),
    "speakers are not in SPEAKERS.TXT (analyses of gender will lack them): 19": edit(
        "SPEAKERS.TXT", "19   | F", "20   | F"
    ),
}


@pytest.mark.parametrize(("message", "change"), WARNINGS.items(), ids=WARNINGS)
def test_what_is_tolerated_is_counted(corpus, tmp_path, change, message):
    change(corpus)
    result = run(corpus, tmp_path / "out", "--test_sets", "dev_clean")
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if "expected" not in line and "valid_speakers" not in line]
    assert len(lines) == 1 and lines[0].startswith(f"warning: {message.format(corpus)}")


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("librispeech", ["--subset", "huge"], "--subset 'huge': expected full or mini"),
        ("librispeech", ["--test_sets", "dev_cloan"], "'dev_cloan'; expected: dev_clean dev_other test_clean test_"),
        ("librispeech", ["--subset", "mini", "--test_sets", "dev_clean"], "'dev_clean'; expected: dev_clean_2 "),
        ("librilight", ["--hours", "2h"], "--hours '2h': expected 10h, 1h or 10min"),
        ("librilight", ["--test_sets", "dev_clean dev_cloan"], "unknown 'dev_cloan'; expected: dev_clean"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_downloaded(recipe, arguments, message):
    done = start(["bash", ROOT / "egs" / recipe / "run.sh", *arguments], capture_output=True, text=True, timeout=1200)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr


def test_real_pieces(tmp_path):
    corpus = ROOT.parent / "shared/corpora/LibriSpeech"
    if not corpus.is_dir():
        pytest.skip(f"no pieces of LibriSpeech at {corpus}")
    pieces = shutil.copytree(corpus, tmp_path / "LibriSpeech", copy_function=shutil.copyfile)
    librispeech.write_chapter(pieces / "train-clean-100", "5652", 19215, range(1), 1000)  # to have one for validation
    result = run(pieces, tmp_path / "out", "--test_sets", "dev_clean")
    assert result.returncode == 0, result.stderr
    assert "transcripts are a placeholder and were left out: 1088-134315-0000" in result.stderr
    train, dev = (load_data_dir(tmp_path / "out" / name) for name in ("train_clean_100", "dev_clean"))
    assert train.spk2gender == {"1088": "f"} and dev.spk2gender == {"2412": "f"} and not train.text
    assert dev.text["2412-153948-0001"].startswith("IT WILL BE SEEN THAT I DID NOT SUCCEED IN MY DESIGN")
    for name, path in [*train.wav.items(), *dev.wav.items()]:
        assert soundfile.info(path).frames == (train.num_samples | dev.num_samples)[name]


def test_configurations_and_table():
    configs = [load_config(path) for path in RECIPE.glob("conf/*.yaml")]
    for config in configs:
        s1 = config.model_conf.get("stack") == 1
        assert (config.data.segment_frames, config.data.batch_frames) == ((16000, 32000) if s1 else (128000, 512000))
        rate = config.training.learning_rate
        assert (config.distribution, rate.peak, rate.schedule) == ("dmol", 3e-4, "constant")
    [table] = load_tables(RECIPE / "conf/tables")
    assert table.table == "A2" and table.sets == list(TESTS)
    trained = [row for row in table.rows if row.experiment not in BASELINES]
    assert {row.root for row in trained} == {"", "../librilight/exp/train_10h"}
    assert len(trained) == 2 * len(configs) and all(list(row.published) == list(TESTS) for row in trained)
    by_hours = {row.configuration: row.published for row in trained}
    for name, published in by_hours.items():
        if name.endswith(", 10 h"):  # ten times the data is better in each cell of the paper
            better = by_hours[name.replace("10 h", "100 h")]
            assert all(better[place] < published[place] for place in TESTS)


# --- Downloads --------------------------------------------------------------------------------------------------------


def download(corpus: Path, sets: str, *words: str, recipe: str = "librispeech", option: str = "--corpus", **options):
    command = ["bash", "local/download.sh", option, str(corpus), "--sets", sets, *words]
    return start(command, cwd=ROOT / "egs" / recipe, capture_output=True, text=True, timeout=1200, **options)


@pytest.mark.parametrize("place", ["", "LibriSpeech"])
def test_only_missing_sets_are_downloaded(corpus, tmp_path, place):
    shutil.rmtree(corpus / "test-clean")
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    given = corpus.parent / place
    done = download(given, "dev_clean test_clean dev_other", "--mirror", "http://here/", env=environment)
    assert done.stdout.splitlines() == [
        *("-m", "speechlvm.bin.download", "--archives", "local/archives.yaml", "--only", "test-clean"),
        *("--to", str(corpus.parent), "--mirror", "http://here/"),
    ]
    done = download(given, "train_clean_100 dev_clean", env=environment)
    assert done.stdout == f"corpus: {given} contains train-clean-100 dev-clean\n"


@pytest.mark.parametrize("place", ["", "a/b/LibriSpeech/dev-clean"])
def test_sets_in_further_folders_are_not_downloaded_again(corpus, tmp_path, place):
    (tmp_path / "in/a/b").mkdir(parents=True)
    (tmp_path / "in/a/archives/dev-clean/LibriSpeech/dev-clean").mkdir(parents=True)  # interrupted
    corpus.rename(tmp_path / "in/a/b/LibriSpeech")
    done = download(tmp_path / "in" / place, "dev_clean test_clean")
    assert done.returncode == 0
    assert done.stdout == f"corpus: {tmp_path}/in/a/b/LibriSpeech contains dev-clean test-clean\n"
    assert prepare.find_root(tmp_path / "in" / place, ["dev-clean"]) == tmp_path / "in/a/b/LibriSpeech"


def test_sets_are_not_downloaded_to_another_place_than_those_that_are_there(corpus):
    flat = corpus.rename(corpus.parent / "my libri")
    shutil.rmtree(flat / "test-clean")
    done = download(flat, "dev_clean test_clean")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"'{flat}' itself contains dev-clean, but test-clean would be in '{flat}/LibriSpeech'" in done.stderr
    done = download(flat, "dev_clean dev_other")
    assert (done.returncode, done.stdout) == (0, f"corpus: {flat} contains dev-clean dev-other\n")


@pytest.mark.parametrize(("recipe", "option"), [("librispeech", "--corpus"), ("librilight", "--finetuning")])
def test_nothing_is_downloaded_to_a_path_with_a_slip_in_it(tmp_path, recipe, option):
    path = tmp_path / "dtaa" / "LibriSpeech"
    done = download(path, "dev_clean", recipe=recipe, option=option)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"no directory '{path.parent}" in done.stderr and f"--{recipe} DIR; or create the directory" in done.stderr
    assert not path.parent.exists()


def test_archives_are_those_of_the_sets():
    archives = load_archives(RECIPE / "local/archives.yaml").archives
    assert {archive.name for archive in archives} == set(sys.modules["libri_corpus"].NUMBER_OF_UTTERANCES)
    for archive in archives:
        assert archive.content == f"LibriSpeech/{archive.name}" and archive.file == f"{archive.name}.tar.gz"


@pytest.mark.recipe
def test_the_recipe_runs(run_recipe):
    run_recipe("librispeech", probed=True)
