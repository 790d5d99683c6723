"""LibriSpeech's preparation, its configurations and its table; bad input is named by file and line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from imitations import librispeech
from programs import call, load

from speechlvm.data.corpora.download import load_archives
from speechlvm.data.kaldi.directory import load_data_dir
from speechlvm.data.kaldi.validate import validate
from speechlvm.experiment.config import load_config
from speechlvm.experiment.load import build
from speechlvm.observation import AudioObservation, Statistics
from speechlvm.reporting.tables import load_tables

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs/librispeech"
TESTS = ("dev_clean", "dev_other", "test_clean", "test_other")
SETS = ("train_clean_100", "valid_clean_100", *TESTS)


sys.path.insert(0, str(RECIPE / "local"))  # as when it is run
prepare = load(RECIPE / "local/prepare.py")
NUMBER_OF_UTTERANCES = sys.modules["libri_corpus"].NUMBER_OF_UTTERANCES


def run(corpus: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess:
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
    assert all(validate(tmp_path / name) == [] for name in SETS)
    lines = result.stdout.splitlines()
    assert lines[1].startswith("valid_clean_100: 4 utterances, ") and lines[1].endswith(
        "2 speakers (1 f, 1 m), 0 of them also in train"
    )
    assert run(original, tmp_path).stdout == f"{tmp_path}: complete\n"


def test_counts_are_compared_with_the_corpus(original, tmp_path):
    errors = run(original, tmp_path).stderr
    for name, expected in {"train-clean-100": 28539, "dev-clean": 2703, "dev-other": 2864}.items():
        found = 12 if name.startswith("train") else 4
        assert f"warning: {name}: {found} utterances; expected {expected}; if it should be complete, unpack " in errors
    assert "expected 2620" in errors and "expected 2939" in errors
    assert "10 speakers of valid_speakers.txt are not in train-clean-100: 730, 1183, 2911, 4859, 5867, ..." in errors


def test_a_piece_without_the_listed_speakers_has_a_validation_set(corpus, tmp_path):
    for speaker in ("5652", "6081"):
        shutil.rmtree(corpus / "train-clean-100" / speaker)
    result = run(corpus, tmp_path / "out", "--test_sets", "dev_clean")
    assert result.returncode == 0, result.stderr
    assert (
        "2 speakers were drawn for validation, as none of valid_speakers.txt is in train-clean-100: " in result.stderr
    )
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
    rest = drawn | {"0", "1"}
    assert prepare.draw_speakers(rest, sexes, 6) == drawn
    assert prepare.draw_speakers({"1", "3"}, sexes, 6) == {"1", "3"}


def test_listed_speakers_are_balanced_and_in_the_drawn_order():
    lines = [line.split() for line in prepare.VALID_SPEAKERS.read_text().splitlines() if not line.startswith("#")]
    sexes = dict(lines)
    assert (
        len(sexes) == 12 and sorted(sexes.values()) == list("ffffffmmmmmm") and prepare.listed_speakers() == set(sexes)
    )
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
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == [
        "dev_clean", "train_clean_100", "valid_clean_100",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["above", "far above", "below", "lower case", "link", "a set", "WAV", "lower case table"]
)
def test_places_that_are_found(corpus, tmp_path, name):
    places = {
        "above": lambda: corpus.parent,
        "below": lambda: corpus.rename(tmp_path / "sets"),
        "lower case": lambda: corpus.rename(corpus.with_name("librispeech")).parent,
        "far above": lambda: shutil.copytree(corpus, tmp_path / "a/b/c/d/LibriSpeech/LibriSpeech").parents[4],
        "a set": lambda: corpus / "dev-clean",
        "WAV": lambda: wav(corpus) or corpus,
        "lower case table": lambda: (corpus / "SPEAKERS.TXT").rename(corpus / "speakers.txt") and corpus,
        "link": lambda: (tmp_path / "link").symlink_to(corpus) or tmp_path / "link",
    }
    result = run(places[name](), tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert len(load_data_dir(tmp_path / "out/train_clean_100").utterances) == 8


def test_wrong_root_says_what_was_looked_for(tmp_path):
    (tmp_path / "x/LibriSpeech/train-clean-360").mkdir(parents=True)
    result = run(tmp_path / "x", tmp_path / "out")
    assert result.returncode == 1 and result.stderr == (
        f"error: {tmp_path}/x: no corpus in LibriSpeech's layout; looked for directories train-clean-100, dev-clean, "
        "dev-other, test-clean, test-other, in it or in up to 8 folders; give the directory that holds them\n"
    )
    assert "no such directory" in run(tmp_path / "none", tmp_path / "out").stderr


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


def keep(count: int):
    return lambda root: (root / FIRST).write_bytes((root / FIRST).read_bytes()[:count])


def flac(samples: np.ndarray, rate_hz: int = 16000, subtype: str = "PCM_16"):
    return lambda root: soundfile.write(root / FIRST, samples, rate_hz, subtype=subtype)


def wav(root: Path) -> None:
    for path in root.rglob("*.flac"):
        soundfile.write(path.with_suffix(".wav"), *soundfile.read(path, dtype="int16"))
        path.unlink()


FAULTS = {
    "empty": (lambda root: (root / FIRST).write_bytes(b""), f"{FIRST}: empty file"),
    "one byte lost": (cut(1), f"{FIRST}: damaged or truncated FLAC, sample 1000 cannot be read"),
    "cut": (cut(600), f"{FIRST}: damaged or truncated FLAC, sample 1000 cannot be read"),
    "last block lost": (lambda root: (flac(librispeech.noise(1, 20000))(root), cut(100)(root)),
                        f"{FIRST}: damaged or truncated FLAC, sample 20000 cannot be read"),
    "only a header": (keep(42), f"{FIRST}: damaged or truncated FLAC"),
    "half a header": (keep(30), f"{FIRST}: FLAC without a STREAMINFO block"),
    "an error page": (lambda root: (root / FIRST).write_text("<html>404"), f"{FIRST}: unknown format, starts with"),
    "no length": (lambda root: (root / FIRST).write_bytes((b := (root / FIRST).read_bytes())[:24] + b"\0\0" + b[26:]),
                  f"{FIRST}: header says 0 samples, as after writing to a pipe"),
    "8 kHz": (flac(np.zeros(99, np.int16), 8000), f"{FIRST}: sampling rate 8000 Hz; expected 16000 Hz"),
    "stereo": (flac(np.zeros((99, 2), np.int16)), f"{FIRST}: 2 channels; expected 1"),
    "24 bits": (flac(np.zeros(99), subtype="PCM_24"), f"{FIRST}: 24-bit samples; expected 16-bit PCM"),
    "mp3": (lambda root: (root / FIRST).rename((root / FIRST).with_suffix(".mp3")),
            f"{FIRST[:-5]}.mp3: compressed with loss, so that its samples are not the corpus's; expected WAV or FLAC"),
    "cut WAV": (lambda root: (wav(root), (w := (root / FIRST).with_suffix(".wav")).write_bytes(w.read_bytes()[:-200])),
                f"{FIRST[:-5]}.wav: header says 1000 samples, found 900"),
    "of another chapter": (lambda root: (root / FIRST).rename(root / HOME / "26-128107-0009.flac"),
                           f"{HOME}/26-128107-0009.flac: an utterance of speaker 26, chapter 128107; move it there"),
    "text of another chapter": (edit(TEXT, "19-128104-0000", "19-128105-0000"),
                                f"{TEXT}:1: 19-128105-0000 is not of chapter 19-128104; move the line there"),
    "no text": (edit(TEXT, "19-128104-0001 SEA WAS CALM AND", "19-128104-0001"),
                f"{TEXT}:2: '19-128104-0001'; expected an utterance of 19-128104 and its text"),
    "text twice": (edit(TEXT, "19-128104-0001", "19-128104-0000"),
                   f"{TEXT}:2: 19-128104-0000 has a transcript in line 1 already; remove one of the two"),
    "half a letter": (lambda root: (root / TEXT).write_bytes(b"\xff\xfea"),
                      f"{TEXT}: its byte order mark says utf-16"),
    "speaker in two sets": (lambda root: shutil.copytree(root / "dev-clean/84", root / "train-clean-100/84"),
                            "speaker 84 is in train-clean-100 and in dev-clean; no set shares speakers"),
    "table of speakers": (edit("SPEAKERS.TXT", "19   | F |", "19   F |"),
                          "SPEAKERS.TXT:5: '19   F | train-clean-100  | 25.19 | X'; expected 'speaker | F or M | "),
    "no table": (lambda root: (root / "SPEAKERS.TXT").unlink(), "SPEAKERS.TXT: no such file; copy it from any archive"),
    "all held out": (lambda root: [shutil.rmtree(root / "train-clean-100" / name) for name in ("19", "26", "27", "32")],
                     "train_clean_100: no utterances are left for this set"),
    "empty set": (lambda root: [shutil.rmtree(path) for path in (root / "dev-other").iterdir()],
                  "dev_other: no utterances are left for this set"),
}  # fmt: skip


@pytest.mark.parametrize("change,message", FAULTS.values(), ids=FAULTS)
def test_faults_stop_with_file_and_line_and_nothing_written(corpus, tmp_path, change, message):
    change(corpus)
    result = run(corpus, tmp_path / "out")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ") and message in last, result.stderr
    assert "Traceback" not in result.stderr and not list((tmp_path / "out").glob("*/utt2spk"))


def test_all_faults_are_listed(corpus, tmp_path):
    for name in ("19", "26", "27"):
        next((corpus / "train-clean-100" / name).rglob("*0.flac")).write_bytes(b"")
    result = run(corpus, tmp_path / "out")
    assert result.stderr.count("empty file") == 3
    assert result.stderr.strip().endswith("(3 errors in total; nothing was written)")


WARNINGS = {
    "placeholder": (edit(TEXT, "THE SEA WAS CALM", "TRANSCRIPT NOT AVAILABLE"),
                    "1 transcripts are a placeholder and were left out: 19-128104-0000"),
    "no transcripts": (lambda root: (root / TEXT).unlink(), "1 chapters have no .trans.txt: "),
    "no transcript": (lambda root: (root / TEXT).write_text("19-128104-0001 SEA\n"),
                      "1 utterances have no transcript: 19-128104-0000"),
    "no audio": (lambda root: (root / FIRST).unlink(), "1 transcripts have no audio file: 19-128104-0000"),
    "files of the system": (lambda root: (root / HOME / "._19-128104-0000.flac").write_bytes(b"x"),
                            "1 files are not of a chapter and were left out: "),
    "converted beside": (lambda root: (root / HOME / "19-128104-0000.wav").write_bytes(b"x"),
                         "1 recordings that also exist in a better container were left out: "),
    "mp3 beside": (lambda root: (root / HOME / "19-128104-0000.mp3").write_bytes(b"x"),
                   "1 recordings that also exist in a better container were left out: "),
    "file among speakers": (lambda root: (root / "dev-clean/.complete").write_bytes(b""),
                            "1 entries are not speakers and were left out: "),
    "file among chapters": (lambda root: (root / "dev-clean/84/notes.txt").write_bytes(b"x"),
                            "1 entries are not chapters and were left out: "),
    "unknown speaker": (lambda root: edit("SPEAKERS.TXT", "19   | F", "20   | F")(root),
                        "1 speakers are not in SPEAKERS.TXT (analyses of gender will lack them): 19"),
}  # fmt: skip


@pytest.mark.parametrize("change,message", WARNINGS.values(), ids=WARNINGS)
def test_what_is_tolerated_is_counted(corpus, tmp_path, change, message):
    change(corpus)
    result = run(corpus, tmp_path / "out", "--test_sets", "dev_clean")
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stderr.splitlines() if "expected" not in line and "valid_speakers" not in line]
    assert len(lines) == 1 and lines[0].startswith(f"warning: {message}")
    assert all(validate(tmp_path / "out" / name) == [] for name in ("train_clean_100", "valid_clean_100", "dev_clean"))


def test_a_changed_corpus_is_prepared_again(corpus, tmp_path):
    assert run(corpus, tmp_path / "out").returncode == 0
    (corpus / FIRST).unlink()
    assert run(corpus, tmp_path / "out").returncode == 0
    assert "19-128104-0000" not in load_data_dir(tmp_path / "out/train_clean_100").utterances


def test_so_many_bad_audio_files_as_allowed_are_left_out(corpus, tmp_path):
    before = run(corpus, tmp_path / "out")
    (corpus / FIRST).write_bytes(b"")
    assert run(corpus, tmp_path / "out").returncode == 1
    result = run(corpus, tmp_path / "out", "--max_bad", "1")
    assert before.returncode == 0 and result.returncode == 0, result.stderr
    reason = f"{corpus / FIRST}: empty file; copy the file again from its source"
    assert (tmp_path / "out/rejected.tsv").read_text() == f"{corpus / FIRST}\t{reason}\n"
    assert Path(FIRST).stem not in {u for name in SETS for u in load_data_dir(tmp_path / "out" / name).utt2spk}


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--subset", "huge"], "invalid choice"),
        (["--test_sets", "dev_clean dev_cloan"], "--test_sets 'dev_cloan': unknown set; expected some of dev_clean "),
        (["--subset", "mini", "--test_sets", "dev_clean"], "unknown set; expected some of dev_clean_2"),
    ],
)
def test_wrong_usage(original, tmp_path, arguments, message):
    result = run(original, tmp_path / "out", *arguments)
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert not list((tmp_path / "out").glob("*/"))


@pytest.mark.parametrize(
    "recipe,arguments,message",
    [
        ("librispeech", ["--subset", "huge"], "--subset 'huge': expected full or mini"),
        ("librispeech", ["--test_sets", "dev_cloan"], "'dev_cloan'; expected: dev_clean dev_other test_clean test_"),
        ("librispeech", ["--subset", "mini", "--test_sets", "dev_clean"], "'dev_clean'; expected: dev_clean_2 "),
        ("librilight", ["--hours", "2h"], "--hours '2h': expected 10h, 1h or 10min"),
        (
            "librilight",
            ["--test_sets", "dev_clean dev_cloan"],
            "--test_sets: unknown 'dev_cloan'; expected: dev_clean",
        ),
    ],
)
def test_wrong_usage_is_told_before_anything_is_downloaded(recipe, arguments, message):
    command = ["bash", ROOT / "egs" / recipe / "run.sh", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
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
    assert "1 transcripts are a placeholder and were left out: 1088-134315-0000" in result.stderr
    train, dev = (load_data_dir(tmp_path / "out" / name) for name in ("train_clean_100", "dev_clean"))
    assert train.spk2gender == {"1088": "f"} and dev.spk2gender == {"2412": "f"} and not train.text
    assert dev.text["2412-153948-0001"].startswith("IT WILL BE SEEN THAT I DID NOT SUCCEED IN MY DESIGN")
    for part in (train, dev):
        for name, path in part.wav.items():
            assert soundfile.info(path).frames == part.num_samples[name]


CONFIGS = sorted(RECIPE.glob("conf/*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_builds_and_is_in_the_table(path):
    config = load_config(path)
    with torch.device("meta"):
        model = build(config, AudioObservation(config.coding, Statistics(0.0, 0.1)), seed=1)
    [table] = load_tables(RECIPE / "conf/tables")
    [row] = [row for row in table.rows if row.experiment == path.stem and not row.root]
    assert row.s == model.stack and config.coding == table.coding and config.distribution == "dmol"
    segments = {1: (16000, 32000), 64: (128000, 512000)}
    assert (config.data.segment_frames, config.data.batch_frames) == segments[row.s]
    rate = config.training.learning_rate
    assert (rate.peak, rate.schedule) == (3e-4, "constant")


def test_the_table_has_both_training_sets():
    [table] = load_tables(RECIPE / "conf/tables")
    assert table.table == "A2" and table.sets == list(TESTS)
    trained = [row for row in table.rows if row.experiment not in ("uniform", "dmol", "flac")]
    assert {row.root for row in trained} == {"", "../librilight/exp/train_10h"}
    assert len(trained) == 2 * len(CONFIGS) and all(list(row.published) == list(TESTS) for row in table.rows)
    by_hours = {row.configuration: row.published for row in trained}
    for name, published in by_hours.items():
        if name.endswith(", 10 h"):  # ten times the data is better in each cell of the paper
            better = by_hours[name.replace("10 h", "100 h")]
            assert all(better[place] < published[place] for place in TESTS)


@pytest.mark.parametrize("place", ["", "LibriSpeech"])
def test_only_missing_sets_are_downloaded(corpus, tmp_path, place):
    shutil.rmtree(corpus / "test-clean")
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    python.chmod(0o755)
    command = ["bash", "local/download.sh", "--corpus", str(corpus.parent / place), "--mirror", "http://here/"]
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    asked = (("dev_clean test_clean dev_other", "test-clean"), ("train_clean_100 dev_clean", ""))
    for sets, only in asked:
        done = subprocess.run(
            [*command, "--sets", sets], cwd=RECIPE, env=environment, capture_output=True, text=True, check=True
        )
        expected = ["-m", "speechlvm.bin.download", "--archives", "local/archives.yaml", "--only", only,
                    "--to", str(corpus.parent), "--mirror", "http://here/"]  # fmt: skip
        holds = [f"corpus: {corpus.parent / place} contains train-clean-100 dev-clean"]
        assert done.stdout.splitlines() == (expected if only else holds)


@pytest.mark.parametrize("place", ["", "a", "a/b/LibriSpeech/dev-clean"])
def test_sets_in_further_folders_are_not_downloaded_again(corpus, tmp_path, place):
    (tmp_path / "in/a/b").mkdir(parents=True)
    (tmp_path / "in/a/archives/dev-clean/LibriSpeech/dev-clean").mkdir(parents=True)  # interrupted
    corpus.rename(tmp_path / "in/a/b/LibriSpeech")
    command = ["bash", "local/download.sh", "--corpus", str(tmp_path / "in" / place), "--sets", "dev_clean test_clean"]
    done = subprocess.run(command, cwd=RECIPE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout == f"corpus: {tmp_path}/in/a/b/LibriSpeech contains dev-clean test-clean\n"
    assert prepare.find_root(tmp_path / "in" / place, ["dev-clean"]) == tmp_path / "in/a/b/LibriSpeech"


def test_sets_are_not_downloaded_to_another_place_than_those_that_are_there(corpus):
    flat = corpus.rename(corpus.parent / "my libri")
    shutil.rmtree(flat / "test-clean")
    command = ["bash", "local/download.sh", "--corpus", str(flat), "--sets"]
    done = subprocess.run([*command, "dev_clean test_clean"], cwd=RECIPE, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"'{flat}' itself contains dev-clean, but test-clean would be in '{flat}/LibriSpeech'" in done.stderr
    done = subprocess.run([*command, "dev_clean dev_other"], cwd=RECIPE, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"corpus: {flat} contains dev-clean dev-other\n")


@pytest.mark.parametrize("recipe,option", [("librispeech", "--corpus"), ("librilight", "--finetuning")])
def test_nothing_is_downloaded_to_a_path_with_a_slip_in_it(tmp_path, recipe, option):
    path = tmp_path / "dtaa" / "LibriSpeech"
    command = ["bash", "local/download.sh", option, str(path), "--sets", "dev_clean"]
    done = subprocess.run(command, cwd=ROOT / "egs" / recipe, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"no directory '{path.parent}" in done.stderr and f"--{recipe} DIR; or create the directory" in done.stderr
    assert not path.parent.exists()


def test_archives_are_those_of_the_sets():
    listed = load_archives(RECIPE / "local/archives.yaml")
    assert {archive.name for archive in listed.archives} == set(NUMBER_OF_UTTERANCES)
    for archive in listed.archives:
        assert archive.content == f"LibriSpeech/{archive.name}" and archive.file == f"{archive.name}.tar.gz"
        assert archive.max_unpacked_bytes > archive.bytes
