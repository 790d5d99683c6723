"""Blizzard: every layout and container is read, chapters stay whole, errors are named; its configurations."""

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import soundfile
from imitations import blizzard
from programs import call, load

from speechlvm.data.audio import audio_info, read_audio
from speechlvm.data.kaldi.directory import load_data_dir
from speechlvm.experiment.config import load_config
from speechlvm.reporting.tables import load_tables

RECIPE = Path(__file__).resolve().parents[2] / "egs/blizzard"
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
    return call(prepare.main, "--corpus", corpus, "--out", out, "--jobs", 2, *options)


def data_of(out):
    return {name: load_data_dir(out / name) for name in SETS}


def books_of(out):
    return Counter(book for part in data_of(out).values() for book in part.utt2spk.values())


def test_books_as_they_are_unpacked(corpus, tmp_path):
    done = run(corpus, tmp_path / "data")
    assert done.returncode == 0, done.stderr
    data = data_of(tmp_path / "data")
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
    assert "jane_austen.emma: 4 recordings, 0.001 hours" in done.stdout
    assert "4 files are not audio and were left out: " in done.stderr and "Cover.JPG" in done.stderr
    assert "files of the operating system were left out: " in done.stderr and "._emma_01.mp3" in done.stderr
    assert "archives were not unpacked, because there is a directory 'unsegmented': " in done.stderr
    assert "0.0 hours in all; the published experiments used 315" in done.stderr
    # the mean of both channels, at the right level and length
    values, rate_hz = soundfile.read(corpus / BOOKS / "jane_austen/Persuasion/Persuasion Chapter 1.MP3")
    utterance = "jane_austen.Persuasion-Persuasion_Chapter_1"
    samples = read_audio(data[found[utterance]].wav[utterance])
    assert len(samples) == round(len(values) * 16000 / rate_hz)
    assert samples.std() / 32768 == pytest.approx(values.mean(axis=1).std(), rel=0.05)
    # the division is the same everywhere
    assert run(corpus.rename(tmp_path / "elsewhere"), tmp_path / "other").returncode == 0
    assert [part.utterances for part in data_of(tmp_path / "other").values()] == [p.utterances for p in data.values()]


def test_archives_in_archives(packed, tmp_path):
    done = run(packed, tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert books_of(tmp_path / "data") == {
        "BC2013_segmented_v0_wav1.emma": 9,
        "BC2013_segmented_v0_wav2.jane_eyre": 4,
        **{f"BlackBeauty.Part{part}.Black_Beauty": 1 for part in (1, 2, 3)},
    }
    # a chapter's sentences are in one set
    parts = data_of(tmp_path / "data").values()
    chapters = [{u.rpartition("-")[0] for u in part.utterances if "-CB-" in u} for part in parts]
    assert sum(map(len, chapters)) == len(set().union(*chapters)) == 5
    # archives are unpacked once, and left as they are
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.[wfoa]*") if path.is_file()}
    (packed / "new.txt").write_text("the corpus has changed")
    assert run(packed, tmp_path / "data").returncode == 0
    assert len(stamps) > 30 and {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_the_archive_of_all_books_is_enough(corpus, tmp_path):
    root = tmp_path / "only the archive"
    root.mkdir()
    archive = root / "Lessac_Blizzard2013_CatherineByers_train.tar.bz2"
    shutil.move(corpus / Path(BOOKS).parent, corpus / "train")
    subprocess.run(["tar", "-cjf", archive, "train"], cwd=corpus, check=True)
    shutil.copy(corpus / "BlackBeauty.zip", root)
    done = run(root, tmp_path / "data")
    assert done.returncode == 0 and "BlackBeauty.zip" in done.stderr, done.stderr
    books = books_of(tmp_path / "data")
    assert "jane_austen.emma" in books and not any("Beauty" in book for book in books)


def test_an_archive_beside_what_was_in_it_is_left_packed(packed, tmp_path):
    shutil.unpack_archive(packed / "BC2013_segmented_v0_wav1.zip", packed / "BC2013_segmented_v0_wav1")
    done = run(packed, tmp_path / "data")
    assert done.returncode == 0 and "not unpacked, because there is a directory with their name: " in done.stderr
    assert "BC2013_segmented_v0_wav1.emma: 9 recordings" in done.stdout


def test_a_damaged_archive_is_named(packed, tmp_path):
    cut("BlackBeauty.zip")(packed)
    done = run(packed, tmp_path / "data")
    assert done.returncode == 1 and done.stderr.startswith(f"error: {packed}/BlackBeauty.zip: damaged")
    assert done.stderr.count("\n") == 1


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


def cut(name, count=5000):
    return lambda root: write(name, (root / name).read_bytes()[:-count])(root)


TOLERATED = {
    "2 recordings have the samples of another and were left out: ": copies,
    "0.0 hours": write(  # numbers in names that are dates, and no chapters
        f"{EMMA}/recorded 20130517.wav", blizzard.audio(blizzard.speech(7, 8000), 16000, format="WAV")
    ),
    "chapters are missing from a sequence: jane_austen.emma 2": lambda root: (root / EMMA / "emma_02.mp3").unlink(),
    "recordings that also exist in a better container were left out: ": better,
    "recordings are outside 'unsegmented' and were left out: ": write("loose.wav", b"no audio at all"),
    "MP3 files are up to two blocks shorter than their headers say: ": cut(f"{EMMA}/emma_01.mp3", 20),
}


@pytest.mark.parametrize(("message", "change"), TOLERATED.items(), ids=TOLERATED)
def test_what_is_tolerated_is_counted(corpus, tmp_path, change, message):
    change(corpus)
    done = run(corpus, tmp_path / "data")
    assert done.returncode == 0 and f"warning: {message}" in done.stderr, done.stderr
    assert ("missing" in done.stderr) == ("missing" in message)
    data = data_of(tmp_path / "data")
    samples = [read_audio(path).tobytes() for part in data.values() for path in part.wav.values()]
    assert len(set(samples)) == len(samples)


FAULTS = {
    f"{EMMA}/emma_01.mp3: header says ": cut(f"{EMMA}/emma_01.mp3"),
    "x.m4a: MPEG-4 audio (m4a, AAC), which is not": write(f"{EMMA}/x.m4a", b"\0\0\0\x20ftypM4A " + bytes(9)),
    "same id as ": lambda root: shutil.copy(root / EMMA / "emma_01.mp3", root / EMMA / "emma 01.mp3"),
    "x.mp3: dangling symbolic link": lambda root: (root / EMMA / "x.mp3").symlink_to("nowhere"),
    "valid: no utterances are left for this set": lambda root: [
        shutil.rmtree(root / BOOKS / name) for name in ("jane_austen", "young_readers")
    ],
}


@pytest.mark.parametrize(("message", "change"), FAULTS.items(), ids=FAULTS)
def test_faults_are_named_and_no_set_is_written(corpus, tmp_path, change, message):
    change(corpus)
    done = run(corpus, tmp_path / "data")
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1], done.stderr
    assert not any((tmp_path / "data" / name).exists() for name in SETS)


# --- Configurations ---------------------------------------------------------------------------------------------------

CONFIGS = {path.stem: load_config(path) for path in sorted((RECIPE / "conf").glob("*.yaml"))}
TABLES = {table.table: table for table in load_tables(RECIPE / "conf/tables")}


def test_published_figures():
    assert [(row.mark, row.published["test"]) for row in TABLES["B1"].rows] == [
        ("", 7413), (">=", 9392), (">=", 11991), (">=", 14226), (">=", 15024), ("", -5777), (">=", 15708),
    ]  # fmt: skip


def test_sizes_and_lengths_that_are_stated():
    assert f"dump_args=(--segment_frames {40 * 200})" in (RECIPE / "run.sh").read_text()
    for config in CONFIGS.values():
        assert config.model_conf["stack"] == 200 and config.data.segment_frames == 40 * 200
        assert config.data.batch_frames == 128 * config.data.segment_frames
        assert config.limits.steps == 40 * (2040064 // 128) and config.validation.every_steps == 2040064 // 128
        assert config.distribution == "gaussian" and config.distribution_conf == {"minimum_std": 0.0}
        if config.model == "stochastic_wavenet":
            assert (config.model_conf["layers"], config.model_conf["channels"]) == (5, 1024)
            assert config.training.kl_weight.steps == config.limits.steps / 2
        if config.model == "zforcing":
            assert (config.model_conf["state"], config.model_conf["latent"]) == (2048, 256)


def test_sweeps():
    confs = {name: [CONFIGS[row.experiment].model_conf for row in TABLES[name].rows] for name in ("B4a", "B5a")}
    assert [conf["stochastic_layers"] for conf in confs["B4a"]] == [1, 2, 3, 4, 5]
    assert {conf["latent_total"] for conf in confs["B4a"]} == {500}
    assert {conf["stochastic_layers"] for conf in confs["B5a"]} == {4}


@pytest.mark.recipe
def test_the_recipe_runs(run_recipe):
    run_recipe("blizzard")
