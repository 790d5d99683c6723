"""Copies of all corpora as they lie about: behind symbolic links, and saved again by an editor on another system."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import programs
import pytest
from imitations import blizzard, cmu_mocap, iam_ondb, librilight, librispeech, template, timit, wavdir

from speechlvm.data.kaldi.directory import load_data_dir

EGS = Path(__file__).resolve().parents[2] / "egs"


class Corpus(NamedTuple):
    """How a recipe is prepared, from an imitation in a directory of its own; a file that is read; endings of texts."""

    recipe: str
    make: Callable[[Path], object]
    arguments: Callable[[Path], tuple]
    read: str
    texts: tuple[str, ...] = ()


CORPORA = [
    Corpus("timit", lambda root: timit.make(root / "in"), lambda root: ("--corpus", root / "in"),
           "TRAIN/DR1/FABC0/SA1.PHN", (".PHN", ".TXT", ".WRD")),
    Corpus("librispeech", lambda root: librispeech.make(root / "in", ("train-clean-100", "dev-clean"), frames=1000),
           lambda root: ("--corpus", root / "in", "--test_sets", "dev_clean"),
           "LibriSpeech/dev-clean/84/128104/84-128104.trans.txt", (".txt", ".TXT")),
    Corpus("librilight", lambda root: librilight.make(root / "in", frames=1000),
           lambda root: ("--finetuning", root / "in", "--corpus", root / "in", "--test_sets", "dev_clean"),
           "librispeech_finetuning/9h/clean/3526/175658/3526-175658.trans.txt", (".txt", ".TXT")),
    Corpus("blizzard", lambda root: blizzard.make(root / "in", 0.1), lambda root: ("--corpus", root / "in"),
           "Lessac_Blizzard2013_CatherineByers_train/unsegmented/jane_austen/emma/emma_01.mp3"),
    Corpus("iam_ondb", lambda root: iam_ondb.make(root / "in", words=1), lambda root: ("--corpus", root / "in"),
           "lineStrokes/a01/a01-020/a01-020x-02.xml", (".txt",)),
    Corpus("human_motion", lambda root: cmu_mocap.make(root / "in", subjects=3, frames=40),
           lambda root: ("--corpus", root / "in"), "all_asfamc/subjects/01/01_01.amc", (".amc", ".asf")),
    Corpus("wavdir", lambda root: wavdir.make(root / "in", frames=900),
           lambda root: ("--wav_dir", root / "in", "--bits", "16", "--channel", "mix"), "anna/000.wav"),
    Corpus("TEMPLATE", lambda root: template.make(root / "in"), lambda root: ("--corpus", root / "in"),
           "train/tr0/0.wav"),
    Corpus("TEMPLATE/vectors", lambda root: template.make(root / "in", "csv"), lambda root: ("--corpus", root / "in"),
           "train/tr0/0.csv", (".csv",)),
]  # fmt: skip


def prepared(corpus: Corpus, root: Path, out: Path) -> subprocess.CompletedProcess:
    local = EGS / corpus.recipe / "local"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(local)
        done = programs.call(programs.load(local / "prepare.py").main, *corpus.arguments(root), "--out", out)
    assert done.returncode == 0, done.stderr
    return done


def sets_of(out: Path) -> dict:
    """What the sets hold, without paths."""
    found = {path.parent.name: load_data_dir(path.parent) for path in out.glob("*/utt2spk")}
    named = ("utt2spk", "text", "phones", "words", "num_samples", "num_frames", "spk2gender", "spk2height_cm")
    return {name: [getattr(data, column) for column in named] for name, data in found.items()}


@pytest.mark.parametrize("corpus", CORPORA, ids=[corpus.recipe for corpus in CORPORA])
def test_what_changes_behind_links_is_prepared_anew(corpus, tmp_path):
    corpus.make(tmp_path)
    out = tmp_path / "out"
    prepared(corpus, tmp_path, out)
    plain = sets_of(out)
    file, disk, other = tmp_path / "in" / corpus.read, tmp_path / "disk", tmp_path / "other disk"
    link = file.parent
    shutil.move(link, disk)
    link.symlink_to(disk)
    (disk / "again").symlink_to(".")

    def is_done() -> bool:
        return prepared(corpus, tmp_path, out).stdout == f"{out}: complete\n"

    assert not is_done() and sets_of(out) == plain and is_done()
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert not is_done() and is_done()
    # the link leads elsewhere from now on, to files of the same sizes and times
    shutil.copytree(disk, other, symlinks=True)
    link.unlink()
    link.symlink_to(other)
    assert file.exists() and not is_done() and is_done()


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
