"""What the preparations of all corpora have in common: when they work again, what stops them, links and encodings."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import programs
import pytest
from imitations import blizzard, festvox_ru, human_motion, iam_ondb, librilight, librispeech, template, timit, wavdir

from speechlvm.data.kaldi.directory import load_data_dir
from speechlvm.data.kaldi.validate import validate
from speechlvm.utils.files import read_json

EGS = Path(__file__).resolve().parents[2] / "egs"


class Corpus(NamedTuple):
    """How a recipe is prepared, from an imitation in a directory of its own.

    Attributes:
        recipe: its directory.
        make: writes the imitation below a directory.
        arguments: of the program, given that directory.
        read: a file in the imitation that is read.
        spoilt: two more, without which the sets are not empty.
        option: that makes other sets.
        texts: endings of files in another encoding where an editor on another system saved them.
        made: patterns of files that are written beside the sets.
        audio: whether so many audio files may be bad as --max_bad says.
    """

    recipe: str
    make: Callable[[Path], object]
    arguments: Callable[[Path], tuple]
    read: str
    spoilt: tuple[str, str]
    option: tuple = ("--max_bad", 1)
    texts: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    audio: bool = True


CLEAN = "LibriSpeech/dev-clean/84/128104"
FLAC = (f"{CLEAN}/84-128104-0000.flac", f"{CLEAN}/84-128104-0001.flac")
BOOKS = "Lessac_Blizzard2013_CatherineByers_train/unsegmented"
STROKES = "lineStrokes/a01/a01-020/a01-020x"
CORPORA = [
    Corpus("timit", lambda root: timit.make(root / "in"), lambda root: ("--corpus", root / "in"),
           "TRAIN/DR1/FABC0/SA1.PHN", ("TRAIN/DR1/FABC0/SA1.WAV", "TEST/DR1/MJKL0/SA1.WAV"), ("--seed", 1),
           (".PHN", ".TXT", ".WRD")),
    Corpus("librispeech", lambda root: librispeech.make(root / "in", ("train-clean-100", "dev-clean"), frames=1000),
           lambda root: ("--corpus", root / "in", "--test_sets", "dev_clean"),
           f"{CLEAN}/84-128104.trans.txt", FLAC, texts=(".txt", ".TXT")),
    Corpus("librilight", lambda root: librilight.make(root / "in", frames=1000),
           lambda root: ("--finetuning", root / "in", "--corpus", root / "in", "--test_sets", "dev_clean"),
           "librispeech_finetuning/9h/clean/3526/175658/3526-175658.trans.txt", FLAC, ("--hours", "1h"),
           (".txt", ".TXT")),
    Corpus("blizzard", lambda root: blizzard.make(root / "in", 0.1), lambda root: ("--corpus", root / "in"),
           f"{BOOKS}/jane_austen/emma/emma_01.mp3",
           (f"{BOOKS}/jane_austen/emma/emma_02.mp3", f"{BOOKS}/jane_austen/emma/emma_03.mp3"), made=("audio/*/*.wav",)),
    Corpus("iam_ondb", lambda root: iam_ondb.make(root / "in", words=1), lambda root: ("--corpus", root / "in"),
           f"{STROKES}-02.xml", (f"{STROKES}-01.xml", f"{STROKES}-03.xml"), ("--clip", 20), (".txt",),
           ("archives/lines.ark",), False),
    Corpus("human_motion", lambda root: human_motion.make(root / "in", subjects=5, frames=40),
           lambda root: ("--corpus", root / "in"), "all_asfamc/subjects/01/01_01.amc",
           ("all_asfamc/subjects/02/02_01.amc", "all_asfamc/subjects/04/04_01.amc"), ("--rate_hz", 60),
           (".amc", ".asf"), ("frames/valid.ark", "motion.json"), False),
    Corpus("wavdir", lambda root: wavdir.make(root / "in", frames=900),
           lambda root: ("--wav_dir", root / "in", "--bits", "16", "--channel", "mix"), "anna/000.wav",
           ("anna/003.wav", "anna/006.wav"), ("--test_size", 3), made=("audio/*.wav",)),
    Corpus("festvox_ru", lambda root: festvox_ru.make(root / "in"), lambda root: ("--corpus", root / "in"),
           f"{festvox_ru.VOICE}/lab/ru_0001.lab", tuple(f"{festvox_ru.VOICE}/wav/ru_000{i}.wav" for i in (2, 4)),
           texts=(".lab",)),
    Corpus("TEMPLATE", lambda root: template.make(root / "in"), lambda root: ("--corpus", root / "in"),
           "train/tr0/0.wav", ("train/tr0/2.wav", "test/te0/2.wav")),
    Corpus("TEMPLATE/vectors", lambda root: template.make(root / "in", "csv"), lambda root: ("--corpus", root / "in"),
           "train/tr0/0.csv", ("train/tr0/2.csv", "test/te0/2.csv"), texts=(".csv",), made=("frames/test.ark",),
           audio=False),
]  # fmt: skip
every_corpus = pytest.mark.parametrize("corpus", CORPORA, ids=[corpus.recipe for corpus in CORPORA])


def run(corpus: Corpus, root: Path, out: Path, *words: object) -> subprocess.CompletedProcess:
    main = programs.load(EGS / corpus.recipe / "local/prepare.py").main
    return programs.call(main, *corpus.arguments(root), "--out", out, *words)


def prepared(corpus: Corpus, root: Path, out: Path, *words: object) -> str:
    done = run(corpus, root, out, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sets_of(out: Path) -> dict:
    """What the sets hold, without paths."""
    found = {path.parent.name: load_data_dir(path.parent) for path in out.glob("*/utt2spk")}
    named = ("utt2spk", "text", "phones", "words", "num_samples", "num_frames", "spk2gender", "spk2height_cm")
    return {name: [getattr(data, column) for column in named] for name, data in found.items()}


@every_corpus
def test_sets_are_made_once_and_again_when_anything_changes(corpus, tmp_path):
    corpus.make(tmp_path)
    out = tmp_path / "out"

    def is_done(*words) -> bool:
        return prepared(corpus, tmp_path, out, *words) == f"{out}: complete\n"

    assert not is_done() and is_done()
    plain = sets_of(out)
    assert [fault for name in plain for fault in validate(out / name)] == []
    # what was written
    for pattern in ("*/utt2spk", *corpus.made):
        path = next(out.glob(pattern))
        path.unlink()
        assert not is_done() and path.exists()
    assert is_done() and sets_of(out) == plain
    # the corpus, behind a link
    file, disk, other = tmp_path / "in" / corpus.read, tmp_path / "disk", tmp_path / "other disk"
    link = file.parent
    shutil.move(link, disk)
    link.symlink_to(disk)
    (disk / "again").symlink_to(".")
    assert not is_done() and sets_of(out) == plain and is_done()
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert not is_done() and is_done()
    # the link leads elsewhere from now on, to files of the same sizes and times
    shutil.copytree(disk, other, symlinks=True)
    link.unlink()
    link.symlink_to(other)
    assert file.exists() and not is_done() and is_done()
    assert not is_done(*corpus.option)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("corpus", [corpus for corpus in CORPORA if corpus.texts], ids=lambda corpus: corpus.recipe)
def test_texts_that_an_editor_on_windows_saved(corpus, encoding, tmp_path):
    corpus.make(tmp_path)
    prepared(corpus, tmp_path, tmp_path / "expected")
    changed = [path for path in (tmp_path / "in").rglob("*.*") if path.suffix in corpus.texts]
    for path in changed:
        lines = path.read_bytes().decode("latin-1").splitlines()
        path.write_bytes("".join(f"{line}\r\n" for line in lines).encode(encoding))
    assert changed
    prepared(corpus, tmp_path, tmp_path / "out")
    assert sets_of(tmp_path / "out") == sets_of(tmp_path / "expected")


@every_corpus
def test_a_corpus_that_is_not_there(corpus, tmp_path):
    absent = run(corpus, tmp_path, tmp_path / "out")
    (tmp_path / "in").mkdir()
    empty = run(corpus, tmp_path, tmp_path / "out")
    for done, said in ((absent, "no such (directory|folder); "), (empty, "looked (for|through)|expected")):
        assert done.returncode == 1 and re.search(said, done.stderr), done.stderr
        assert all(line.startswith(f"error: {tmp_path}/in") for line in done.stderr.splitlines())
    assert not sets_of(tmp_path / "out")


@every_corpus
def test_all_bad_files_are_named_and_so_many_left_out_as_allowed(corpus, tmp_path):
    corpus.make(tmp_path)
    out, bad = tmp_path / "out", [tmp_path / "in" / name for name in corpus.spoilt]
    for path in bad:
        path.write_bytes(b"")
    done = run(corpus, tmp_path, out)
    named = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and all(str(path) in line for path, line in zip(bad, named, strict=True))
    assert named[-1].endswith("(2 errors in total; nothing was written)") and not sets_of(out)
    if corpus.audio:
        assert run(corpus, tmp_path, out, "--max_bad", 1).returncode == 1
        prepared(corpus, tmp_path, out, "--max_bad", 2)
        rejected = [line.split("\t") for line in (out / "rejected.tsv").read_text().splitlines()]
        reason = "empty file; copy the file again from its source"
        assert rejected == [[str(path), f"{path}: {reason}"] for path in sorted(bad)]
        assert {read_json(out / name / "preparation.json")["rejected"] for name in sets_of(out)} == {2}
