"""Blizzard's preparation: every layout and container is read, chapters stay whole, what is wrong is named."""

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from imitations import blizzard
from programs import call, load

from speechlvm.data.audio import audio_info, read_audio
from speechlvm.data.kaldi.directory import load_data_dir
from speechlvm.data.kaldi.validate import validate

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs/blizzard"
SETS = ("train", "valid", "test")
BOOKS = "Lessac_Blizzard2013_CatherineByers_train/unsegmented"
EMMA = f"{BOOKS}/jane_austen/emma"

prepare = load(RECIPE / "local/prepare.py")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Both layouts, made once."""
    root = tmp_path_factory.mktemp("blizzard")
    return blizzard.make(root / "unpacked", 0.7), blizzard.make_packed(root / "packed", 0.7)


@pytest.fixture
def corpus(made, tmp_path):
    return Path(shutil.copytree(made[0], tmp_path / "audio books"))


@pytest.fixture
def packed(made, tmp_path):
    return Path(shutil.copytree(made[1], tmp_path / "archives"))


def run(corpus, out, *options):
    """Status, output and errors."""
    done = call(prepare.main, "--corpus", corpus, "--out", out, "--jobs", 2, *options)
    return done.returncode, done.stdout, done.stderr


def data_of(out):
    return {name: load_data_dir(out / name) for name in SETS}


def test_books_as_they_are_unpacked(corpus, tmp_path):
    status, output, errors = run(corpus, tmp_path / "data")
    assert status == 0, errors
    data = data_of(tmp_path / "data")
    assert all(validate(tmp_path / "data" / name) == [] for name in SETS)
    found = {utterance: set_name for set_name, part in data.items() for utterance in part.utterances}
    assert sorted(found) == [
        "christmas.christmas_stories.the_gift_of_the_magi-gift_of_the_magi",
        "jane_austen.Persuasion-Persuasion_Chapter_1",
        "jane_austen.Persuasion-Persuasion_Chapter_2",
        "jane_austen.emma-emma_01",
        "jane_austen.emma-emma_02",
        "jane_austen.emma-emma_03",
        "jane_austen.emma-emma_04",
        "young_readers.the_jungle_books.the_jungle_book-jungle01",
        "young_readers.the_jungle_books.the_jungle_book-jungle02",
    ]
    assert Counter(found.values()) == {"train": 7, "valid": 1, "test": 1}
    for part in data.values():
        for utterance, path in part.wav.items():
            info = audio_info(path)
            assert (info.container, info.bits, info.channels, info.rate_hz) == ("wav", 16, 1, 16000)
            assert part.num_samples[utterance] == info.num_samples
            assert part.utt2spk[utterance] == utterance.rpartition("-")[0]
    assert "jane_austen.emma: 4 recordings, 0.001 hours" in output
    assert "4 files are not audio and were left out: " in errors and "Cover.JPG" in errors
    assert "1 files of the operating system were left out: " in errors and "._emma_01.mp3" in errors
    assert "1 archives were not unpacked, because there is a directory 'unsegmented': " in errors
    assert "0.0 hours in all; the published experiments used 315" in errors
    # the mean of both channels, at the right level and length
    path = corpus / BOOKS / "jane_austen/Persuasion/Persuasion Chapter 1.MP3"
    values, rate_hz = soundfile.read(path)
    utterance = "jane_austen.Persuasion-Persuasion_Chapter_1"
    samples = read_audio(data[found[utterance]].wav[utterance])
    assert len(samples) == round(len(values) * 16000 / rate_hz)
    assert samples.std() / 32768 == pytest.approx(values.mean(axis=1).std(), rel=0.05)


def test_archives_in_archives(packed, tmp_path):
    status, _, errors = run(packed, tmp_path / "data")
    assert status == 0, errors
    data = data_of(tmp_path / "data")
    books = Counter(book for part in data.values() for book in part.utt2spk.values())
    assert books == {
        "BC2013_segmented_v0_wav1.emma": 9,
        "BC2013_segmented_v0_wav2.jane_eyre": 4,
        **{f"BlackBeauty.Part{part}.Black_Beauty": 1 for part in (1, 2, 3)},
    }
    # a chapter's sentences are in one set
    chapters = [{u.rpartition("-")[0] for u in part.utterances if "-CB-" in u} for part in data.values()]
    assert sum(map(len, chapters)) == len(set().union(*chapters)) == 5
    # archives are unpacked once, and left as they are
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.[wfoa]*") if path.is_file()}
    (packed / "new.txt").write_text("the corpus has changed")
    assert run(packed, tmp_path / "data")[0] == 0
    assert len(stamps) > 30 and {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_the_archive_of_all_books_is_enough(corpus, tmp_path):
    root = tmp_path / "only the archive"
    root.mkdir()
    archive = root / "Lessac_Blizzard2013_CatherineByers_train.tar.bz2"
    shutil.move(corpus / Path(BOOKS).parent, corpus / "train")
    subprocess.run(["tar", "-cjf", archive, "train"], cwd=corpus, check=True)
    shutil.copy(corpus / "BlackBeauty.zip", root)
    status, _, errors = run(root, tmp_path / "data")
    assert status == 0 and "BlackBeauty.zip" in errors, errors
    books = {book for part in data_of(tmp_path / "data").values() for book in part.utt2spk.values()}
    assert "jane_austen.emma" in books and not any("Beauty" in book for book in books)


def test_an_archive_beside_what_was_in_it_is_left_packed(packed, tmp_path):
    shutil.unpack_archive(packed / "BC2013_segmented_v0_wav1.zip", packed / "BC2013_segmented_v0_wav1")
    status, output, errors = run(packed, tmp_path / "data")
    assert status == 0 and "not unpacked, because there is a directory with their name: " in errors
    assert "BC2013_segmented_v0_wav1.emma: 9 recordings" in output


def test_run_again_is_complete_and_the_division_is_the_same_everywhere(corpus, tmp_path):
    assert run(corpus, tmp_path / "data")[0] == 0
    assert run(corpus, tmp_path / "data")[1] == f"{tmp_path / 'data'}: complete\n"
    moved = corpus.rename(tmp_path / "elsewhere")
    assert run(moved, tmp_path / "other")[0] == 0
    first, second = data_of(tmp_path / "data"), data_of(tmp_path / "other")
    assert [part.utterances for part in first.values()] == [part.utterances for part in second.values()]


def test_an_interrupted_conversion_goes_on(corpus, tmp_path):
    (corpus / EMMA / "emma_03.mp3").write_bytes(b"")
    status, _, errors = run(corpus, tmp_path / "data")
    assert status == 1 and "emma_03.mp3: empty file" in errors
    converted = {path: path.stat().st_mtime_ns for path in (tmp_path / "data/audio").rglob("*.wav")}
    assert len(converted) == 8 and not any((tmp_path / "data" / name).exists() for name in SETS)
    shutil.copy(corpus / EMMA / "emma_04.mp3", corpus / EMMA / "emma_03.mp3")
    assert run(corpus, tmp_path / "data")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in converted} == converted


def test_shares_of_many_chapters():
    frames = Counter({f"book-{i}": 1000 + i for i in range(400)})
    sets = prepare.divide(frames)
    for name in ("valid", "test"):
        share = sum(frames[chapter] for chapter in sets if sets[chapter] == name) / frames.total()
        assert 0.05 <= share < 0.0526
    assert prepare.divide(Counter(dict(reversed(frames.items())))) == sets
    assert sorted(prepare.divide(Counter({"a": 1, "b": 10**9, "c": 1})).values()) == ["test", "train", "valid"]


def copies(root):
    (root / EMMA / "emma_09.mp3").write_bytes((root / EMMA / "emma_01.mp3").read_bytes())
    (root / BOOKS / "other").mkdir()
    (root / BOOKS / "other/again.mp3").write_bytes((root / EMMA / "emma_01.mp3").read_bytes())


def write(name, content):
    return lambda root: (root / name).write_bytes(content)


def better(root):
    values, rate_hz = soundfile.read(root / EMMA / "emma_01.mp3")
    soundfile.write(root / EMMA / "emma_01.FLAC", values, rate_hz)


TOLERATED = {
    "copies": (copies, "2 recordings have the samples of another and were left out: "),
    "numbers that are dates": (write(f"{EMMA}/recorded 20130517.wav", blizzard.audio(blizzard.speech(7, 8000), 16000,
                                                                                      format="WAV")), "0.0 hours"),
    "missing chapter": (lambda root: (root / EMMA / "emma_02.mp3").unlink(),
                        "1 chapters are missing from a sequence: jane_austen.emma 2"),
    "two containers": (better, "1 recordings that also exist in a better container were left out: "),
    "outside": (write("loose.wav", b"no audio at all"), "1 recordings are outside 'unsegmented' and were left out: "),
    "cut a little": (lambda root: write(f"{EMMA}/emma_01.mp3", (root / EMMA / "emma_01.mp3").read_bytes()[:-20])(root),
                     "1 MP3 files are up to two blocks shorter than their headers say: "),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), TOLERATED.values(), ids=TOLERATED)
def test_what_is_tolerated_is_counted(corpus, tmp_path, change, message):
    change(corpus)
    status, _, errors = run(corpus, tmp_path / "data")
    assert status == 0 and f"warning: {message}" in errors, errors
    assert ("missing" in errors) == ("missing" in message)
    data = data_of(tmp_path / "data")
    samples = [read_audio(path).tobytes() for part in data.values() for path in part.wav.values()]
    assert len(set(samples)) == len(samples)


def cut(name):
    return lambda root: write(name, (root / name).read_bytes()[:-5000])(root)


FAULTS = {
    "truncated": (cut(f"{EMMA}/emma_01.mp3"), f"{EMMA}/emma_01.mp3: header says "),
    "empty": (write(f"{EMMA}/emma_01.mp3", b""), f"{EMMA}/emma_01.mp3: empty file; copy the file again"),
    "an error page": (write(f"{EMMA}/emma_01.mp3", b"<html>Forbidden</html>"), "starts with b'<html>Forbidden<'"),
    "m4a": (write(f"{EMMA}/x.m4a", b"\0\0\0\x20ftypM4A " + bytes(9)), "x.m4a: MPEG-4 audio (m4a, AAC), which is not"),
    "same id": (lambda root: shutil.copy(root / EMMA / "emma_01.mp3", root / EMMA / "emma 01.mp3"),
                "same id as "),
    "dangling": (lambda root: (root / EMMA / "x.mp3").symlink_to("nowhere"), "x.mp3: dangling symbolic link"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_are_named_and_no_set_is_written(corpus, tmp_path, change, message):
    change(corpus)
    status, _, errors = run(corpus, tmp_path / "data")
    assert status == 1 and errors.splitlines()[-1].startswith("error: ") and message in errors.splitlines()[-1], errors
    assert not any((tmp_path / "data" / name).exists() for name in SETS)


def test_so_many_bad_recordings_as_allowed_are_left_out(corpus, tmp_path):
    bad = corpus / EMMA / "emma_01.mp3"
    bad.write_bytes(b"")
    status, _, errors = run(corpus, tmp_path / "data", "--max_bad", 1)
    assert status == 0, errors
    reason = f"{bad}: empty file; copy the file again from its source"
    assert (tmp_path / "data/rejected.tsv").read_text() == f"{bad}\t{reason}\n"
    told = json.loads((tmp_path / "data/test/preparation.json").read_text())
    assert told["rejected"] == 1 and sum(told["converted"].values()) > 1


def test_a_damaged_archive_is_named(packed, tmp_path):
    cut("BlackBeauty.zip")(packed)
    status, _, errors = run(packed, tmp_path / "data")
    assert status == 1 and errors.startswith(f"error: {packed}/BlackBeauty.zip: damaged")
    assert errors.count("\n") == 1


def test_wrong_roots(corpus, tmp_path):
    assert "no such directory" in run(tmp_path / "none", tmp_path / "data")[2]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("no audio")
    status, _, errors = run(tmp_path / "texts", tmp_path / "data")
    assert status == 1 and "no audiobooks; looked for files .wav .flac" in errors.splitlines()[-1]
    (tmp_path / "one").mkdir()
    shutil.copy(corpus / EMMA / "emma_01.mp3", tmp_path / "one")
    status, _, errors = run(tmp_path / "one", tmp_path / "data")
    assert status == 1 and "valid: no utterances are left for this set" in errors


def test_stage_0_says_where_the_corpus_is_to_be_had(tmp_path):
    command = ["bash", "local/download.sh", "--corpus", str(tmp_path / "none")]
    done = subprocess.run(command, cwd=RECIPE, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "license.html" in done.stderr and "BLIZZARD= in db.sh, or --blizzard DIR" in done.stderr


def test_half_seconds_are_forty_steps():
    assert "dump_args=(--segment_frames 8000)" in (RECIPE / "run.sh").read_text()
    assert np.prod([40, 200]) == 8000


def test_books_that_are_links_are_not_missed(corpus, tmp_path):
    assert run(corpus, tmp_path / "plain")[0] == 0
    shutil.move(corpus / EMMA, tmp_path / "emma")
    (corpus / EMMA).symlink_to(tmp_path / "emma")
    assert run(corpus, tmp_path / "data")[0] == 0
    plain, linked = (data_of(tmp_path / name) for name in ("plain", "data"))
    assert all(plain[name].num_samples == linked[name].num_samples for name in SETS)
