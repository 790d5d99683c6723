"""Durations of phones: quartiles of constructed segments, per speaker and over all."""

import csv
import shlex

import numpy as np
import pytest

from speechlvm.bin import durations
from speechlvm.data.audio import write_wav
from speechlvm.data.kaldi.directory import DataDirectory, Interval, write_data_dir
from speechlvm.utils.errors import UserError

RATE_HZ = 8000


@pytest.fixture
def data(tmp_path):
    """data(name, {utterance: [(label, milliseconds), ...]}, rate): a data directory; speakers are the first letters."""

    def write(name, phones, rate_hz=RATE_HZ):
        directory = tmp_path / name
        made = DataDirectory({utterance: utterance[0] for utterance in phones})
        for utterance, labels in phones.items():
            names = [label for label, _ in labels]
            ends = np.cumsum([0, *(round(ms * rate_hz / 1000) for _, ms in labels)]).tolist()
            made.num_samples[utterance] = ends[-1] + 10
            made.wav[utterance] = tmp_path / f"{utterance}.wav"
            write_wav(made.wav[utterance], np.zeros(ends[-1] + 10, np.int16), rate_hz)
            if labels:
                made.phones[utterance] = [Interval(*place) for place in zip(ends, ends[1:], names, strict=False)]
        write_data_dir(made, directory)
        return directory

    return write


def run(tmp_path, directories, *options):
    exp = tmp_path / "exp"
    durations.main(["--data", *map(str, directories), "--exp", str(exp), *options])
    with open(exp / "durations/phone_durations.csv", encoding="utf-8", newline="") as stream:
        records = list(csv.DictReader(stream))
    return {(r["speaker"], r["phone"]): [float(r[key]) for key in list(r)[2:]] for r in records}


def test_quartiles_of_one_speaker_and_of_all_at_their_own_rates(data, tmp_path, capsys):
    train = data("train", {"a1": [("h#", 500), ("s", 100), ("ih", 50), ("s", 200)], "b1": [("s", 10), ("ax", 20)]})
    test = data("test", {"b2": [("s", 30), ("ih", 70)]}, rate_hz=16000)
    found = run(tmp_path, [train, test], "--speaker", "b")
    assert found == {
        ("b", "s"): [2, 10, 15, 20, 25, 30],
        ("b", "ax"): [1, 20, 20, 20, 20, 20],
        ("b", "ih"): [1, 70, 70, 70, 70, 70],
        ("all", "ax"): [1, 20, 20, 20, 20, 20],
        ("all", "ih"): [2, 50, 55, 60, 65, 70],
        ("all", "s"): [4, 10, 25, 65, 125, 200],
        ("all", "h#"): [1, 500, 500, 500, 500, 500],
    }
    assert list(found) == [
        ("b", "ax"), ("b", "s"), ("b", "ih"), ("all", "ax"), ("all", "ih"), ("all", "s"), ("all", "h#"),
    ]  # fmt: skip
    figures = tmp_path / "exp/durations"
    assert (figures / "phone_durations.png").read_bytes().startswith(b"\x89PNG")
    assert (figures / "phone_durations.pdf").read_bytes().startswith(b"%PDF")
    assert "shown:" not in capsys.readouterr().out


def test_a_speaker_who_is_not_there_is_said_and_the_first_one_shown(data, tmp_path, capsys):
    directory = data("test", {"b1": [("s", 10)], "c1": [("s", 20)]})
    assert set(run(tmp_path, [directory])) == {("b", "s"), ("all", "s")}
    assert set(run(tmp_path, [directory], "--speaker", "FDRW0")) == {("b", "s"), ("all", "s")}
    assert f"speaker FDRW0 has no phones in {directory}; shown: b\n" in capsys.readouterr().out


def test_data_without_phones_are_refused(data, tmp_path):
    directory = data("test", {"b1": []})
    with pytest.raises(UserError, match="test: no phones; give data directories that have them"):
        run(tmp_path, [directory])


def test_parts_of_recordings_and_commands(data, tmp_path):
    directory = data("train", {"a1": [("s", 10), ("ax", 20)]})
    (directory / "segments").write_text("a1 rec 0 -1\n")
    (directory / "wav.scp").write_text(f"rec {tmp_path}/a1.wav\n")
    assert run(tmp_path, [directory])["a", "ax"] == [1, 20, 20, 20, 20, 20]
    (directory / "wav.scp").write_text(f"rec cat {shlex.quote(f'{tmp_path}/a1.wav')} |\n")
    with pytest.raises(UserError, match=r"wav\.scp: rec: 'cat .* is a command; give --allow_pipes if you trust"):
        run(tmp_path, [directory])
    assert run(tmp_path, [directory], "--allow_pipes")["a", "ax"] == [1, 20, 20, 20, 20, 20]
