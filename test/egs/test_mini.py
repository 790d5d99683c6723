"""The embedded corpus: equal bytes on every run, TIMIT's layout, times that fit, speakers and texts apart."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from programs import call, load

from speechlvm.data.audio import audio_info, read_audio
from speechlvm.data.corpora.preparation import misaligned_frames
from speechlvm.data.kaldi.phones import CODES

PROGRAM = Path(__file__).resolve().parents[2] / "egs/mini/local/synthesise.py"
pytest.importorskip("espeakng_loader", reason="needs the synthesiser: pip install espeakng-loader")
PEOPLE = "FEJL0 MLRC0"  # the first has breath noise, which is random in the library

synthesise = load(PROGRAM)


def run(out: Path, *arguments: str) -> subprocess.CompletedProcess:
    """In a process of its own: its children inherit what this one has loaded."""
    return subprocess.run([sys.executable, PROGRAM, "--out", out, *arguments], capture_output=True, text=True)


def hashes(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def segments(path: Path) -> list[tuple[int, int, str]]:
    rows = [line.split() for line in path.read_text().splitlines()]
    return [(int(start), int(end), label) for start, end, label in rows]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("with blank") / "corpus"
    result = run(out, "--speakers", PEOPLE)
    assert result.returncode == 0, result.stderr
    assert "2 speakers, 20 utterances" in result.stdout
    return out


def test_same_bytes_on_every_run_and_in_any_company(corpus, tmp_path):
    assert run(tmp_path / "again", "--speakers", f"MDRE0 {PEOPLE}", "--nj", "1").returncode == 0
    again = hashes(tmp_path / "again")
    first = {name: value for name, value in hashes(corpus).items() if "/DR" in name}
    assert len(first) == 80 and first.items() <= again.items()
    assert len(again) == 122


def test_data_of_the_library_may_lie_deep(tmp_path):
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import espeak\n"
        "library, data = espeak.locate()\n"
        "deep = Path(sys.argv[2]) / ('x' * 200) / 'espeak-ng-data'; deep.parent.mkdir(); deep.symlink_to(data)\n"
        "espeak.locate = lambda: (library, deep)\n"
        "print(espeak.Synthesiser('en', 'f1', 150, 50, 50).speak('One two.').words)"
    )
    command = [sys.executable, "-c", program, PROGRAM.parent, tmp_path]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "'one'" in result.stdout and "'two'" in result.stdout, result.stderr


def test_a_complete_corpus_and_what_is_none_are_left_alone(corpus, tmp_path):
    before = (corpus / "DOC/SPKRINFO.TXT").stat().st_mtime_ns
    result = call(synthesise.main, "--out", corpus, "--speakers", PEOPLE)
    assert result.returncode == 0 and "complete, nothing to do" in result.stdout
    assert (corpus / "DOC/SPKRINFO.TXT").stat().st_mtime_ns == before
    (tmp_path / "mine").write_text("precious")
    result = call(synthesise.main, "--out", tmp_path, "--speakers", PEOPLE)
    assert result.returncode == 1 and "was not made by this program" in result.stderr
    assert (tmp_path / "mine").read_text() == "precious"
    for arguments in (["--speakers", "XXXX0"], ["--nj", "0"]):
        assert call(synthesise.main, "--out", tmp_path / "corpus", *arguments).returncode == 2


def test_interrupted_it_leaves_nothing_under_its_name_and_finishes_later(corpus, tmp_path):
    out = tmp_path / "corpus"
    command = [sys.executable, PROGRAM, "--out", out, "--speakers", f"MDRE0 MGHT0 {PEOPLE}", "--nj", "1"]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 1200  # of a machine that is busy
    while not list(tmp_path.glob(".corpus.partial/*/*/*/*.TXT")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists() and (tmp_path / ".corpus.partial").exists()
    assert run(out, "--speakers", PEOPLE).returncode == 0
    assert hashes(out) == hashes(corpus)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_times_fit_the_audio(corpus):
    paths = sorted(corpus.glob("*/*/*/*.WAV"))
    assert len(paths) == 20
    for path in paths:
        info, samples = audio_info(path), read_audio(path)
        assert info.container == "sphere" and info.extrema == (samples.min(), samples.max())
        phones, words = segments(path.with_suffix(".PHN")), segments(path.with_suffix(".WRD"))
        assert phones[0][0] == 0 and phones[-1][1] == len(samples)
        assert phones[0][2] == phones[-1][2] == "h#"
        assert all(end == start for (_, end, _), (start, _, _) in zip(phones, phones[1:], strict=False))
        assert all(end > start for start, end, _ in phones + words)
        bounds = {start for start, _, _ in phones} | {end for _, end, _ in phones}
        assert all(start in bounds and end in bounds for start, end, _ in words)
        text = path.with_suffix(".TXT").read_text().split(" ", 2)
        assert int(text[1]) == len(samples)
        spoken = " ".join(label for _, _, label in words).replace("_", " ")
        assert spoken == "".join(c for c in text[2].strip().lower() if c not in ".,?;!")


def test_pauses_and_closures_are_quiet_and_vowels_loud(corpus):
    levels: dict[str, list[float]] = {}
    for path in corpus.glob("*/*/*/*.WAV"):
        samples = read_audio(path).astype(float)
        for start, end, label in segments(path.with_suffix(".PHN")):
            levels.setdefault(label, []).append(np.sqrt(np.mean(samples[start:end] ** 2)))
    median = {label: np.median(values) for label, values in levels.items()}
    for label in ("h#", "pcl", "tcl", "kcl"):
        assert 1.5 < median[label] < 8, (label, median[label])
    for label in ("aa", "ae", "ow", "ay"):
        assert median[label] > 30 * median["h#"], (label, median[label])
    assert median["s"] > 5 * median["h#"]


def test_levels_are_those_of_recordings(corpus):
    for home in corpus.glob("*/*/*"):
        samples = np.concatenate([read_audio(path) for path in sorted(home.glob("*.WAV"))]).astype(float)
        assert 200 < np.sqrt(np.mean(samples**2)) < 800
        assert 1000 < np.abs(samples).max() < 20000
        assert misaligned_frames(samples.astype(np.int16)) == 0


def test_speakers_and_sentences_are_divided():
    people, texts = synthesise.speakers(), synthesise.read_sentences()
    assert len(people) == len({person.name for person in people}) == 28
    assert len({(person.region, person.variant) for person in people}) == 28
    assert len({person.variant for person in people}) == 28
    assert sum(person.name.startswith("F") for person in people) == 14
    assert [person.name for person in people if person.use == "TST"] == ["FCMD0", "MLRC0", "FPOS0", "MZFP0"]
    assert len(texts) == 116 == len(set(texts.values()))
    read = [sentence for person in people for sentence in person.sentences]
    assert set(read) == set(texts)
    for person in people:
        assert len(set(person.sentences)) == 10
    assert all(read.count(sentence) == 1 for sentence in texts if sentence.startswith("SI"))
    uses = {use: {s for p in people if p.use == use for s in p.sentences} for use in ("TRN", "TST")}
    assert uses["TRN"] & uses["TST"] == {"SA1", "SA2"}


def test_table_of_speakers_is_in_the_columns_of_timit(corpus):
    rows = [line.split() for line in (corpus / "DOC/SPKRINFO.TXT").read_text().splitlines() if line[0] != ";"]
    assert [row[:4] + row[6:7] for row in rows] == [
        ["EJL0", "F", "2", "TRN", "5'2\""],
        ["LRC0", "M", "3", "TST", "5'11\""],
    ]
    assert sorted(str(path.relative_to(corpus)) for path in corpus.glob("*/*/*") if path.is_dir()) == [
        "TEST/DR3/MLRC0",
        "TRAIN/DR2/FEJL0",
    ]


def test_labels_are_phones_that_the_preparation_takes():
    further = re.search(r'--further_phones "([^"]*)"', (PROGRAM.parent / "data.sh").read_text())[1].split()
    assert set(synthesise.LABELS.values()) - set(CODES) == set(further)
