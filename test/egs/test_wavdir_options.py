"""The recipe for a folder of one's own: conversions are refused unless an option asks for them."""

import json
import shlex
from pathlib import Path

import numpy as np
import programs
import pytest
from imitations.audio import AGAIN, FFMPEG, RATE_HZ, SAMPLES, floats, wave

from speechlvm.data.audio import read_audio, write_wav
from speechlvm.data.kaldi.directory import load_data_dir

LOCAL = Path(__file__).resolve().parents[2] / "egs/wavdir/local"


@pytest.fixture(scope="module")
def prepare():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(LOCAL)
        return programs.load(LOCAL / "prepare.py")


@pytest.fixture
def folder(tmp_path, prepare):
    """folder(contents, *options): prepares a folder of five good files, and x.wav with these contents."""
    root = tmp_path / "in"
    root.mkdir()
    for number in range(5):
        write_wav(root / f"{number}.wav", SAMPLES[number + 1 :], RATE_HZ)

    def run(contents: bytes | None, *options: str):
        if contents is not None:
            (root / "x.wav").write_bytes(contents)
        return programs.call(prepare.main, "--wav_dir", root, "--out", tmp_path / "out", *options)

    return run


WIDE = b"".join((256 * int(value)).to_bytes(3, "little", signed=True) for value in SAMPLES)
STEREO = np.stack([SAMPLES[:2400], SAMPLES[2400:]], axis=1).astype("<i2").tobytes()
NOT_INTEGERS = "1 file whose samples are not 16-bit integers, so that their bits per frame cannot be compared"
# contents, refusal, options that allow it, samples that come out, how they are described
CHOICES = {
    "streamed": (
        wave(size=0xFFFFFFFF),
        ("{path}: header says 2147483647 samples, found 4800, as after writing to a pipe; a truncated file looks the "
        "same; if it is complete, convert it, for example with: sox --ignore-length {source} {target}; or "
        "treat all such files as complete, by --allow_streamed true"),
        ("--allow_streamed", "true"), SAMPLES, "wav of unknown length, 1 channel",
    ),
    "24 bits": (
        wave(WIDE, bits=24), f"{NOT_INTEGERS}: {{path}}; round them all with --bits 16, or move them away",
        ("--bits", "16"), SAMPLES, "wav 24-bit, 1 channel",
    ),
    "stereo": (
        wave(STEREO, channels=2), ("1 file with several channels: {path}; take one with --channel 0 (or another), or "
        "the mean with --channel mix, or move them away"),
        ("--channel", "1"), SAMPLES[2400:], "wav 16-bit, 2 channels",
    ),
    "beyond full scale": (
        floats(0, -0.5, 1.5), ("{path}: 1 samples beyond full scale (peak 1.500); scale the recording down, or clip "
        "them with --clip true"),
        ("--bits", "16", "--clip", "true"), [0, -16384, 32767], "wav 32-bit float, 1 channel",
    ),
}  # fmt: skip


def names(path: Path) -> dict[str, str]:
    """A path, and, quoted for a shell, it and that of what it is converted to."""
    target = f"{path.with_suffix('')}.converted.wav"
    return {"path": str(path), "source": shlex.quote(str(path)), "target": shlex.quote(target)}


@pytest.mark.parametrize("contents, message, options, samples, kind", CHOICES.values(), ids=CHOICES)
def test_only_what_is_asked_for_is_done(folder, tmp_path, contents, message, options, samples, kind):
    refused = folder(contents, *(options[:2] if "--clip" in options else ()))
    message = message.format(**names(tmp_path / "in/x.wav"))
    assert (refused.returncode, refused.stderr) == (1, f"error: {message}\n")
    assert not (tmp_path / "out/train").exists()
    allowed = folder(contents, *options)
    assert allowed.returncode == 0, allowed.stderr
    assert f"1 converted to 16-bit mono in {tmp_path}/out/audio:\n  1 {kind}\n" in allowed.stdout
    (wav,) = (data.wav["x"] for data in map(load_data_dir, (tmp_path / "out").glob("t*")) if "x" in data.wav)
    assert np.array_equal(read_audio(wav), samples)


def test_bad_files_are_left_out_up_to_max_bad(folder, tmp_path):
    out, bad = tmp_path / "out", tmp_path / "in/x.wav"
    text = f"{bad}: cannot be read as audio (Format not recognised); starts with b'text of no sound'; {AGAIN}, or, if "
    text += f"other programs read it, {FFMPEG.format(**names(bad))}"
    (tmp_path / "in/y.wav").write_bytes(b"")
    too_many = folder(b"text of no sound", "--max_bad", "1")
    counts = "(2 errors in total; nothing was written) (2 bad audio files, of which --max_bad allows 1)"
    errors = f"error: {text}\nerror: {bad.parent}/y.wav: empty file; {AGAIN} {counts}\n"
    assert (too_many.returncode, too_many.stderr, (out / "rejected.tsv").exists()) == (1, errors, False)

    left_out = folder(None, "--max_bad", "2")
    assert left_out.returncode == 0 and left_out.stdout.startswith("5 audio files of 16000 Hz: 5 used where they are")
    warning = "2 audio files cannot be used and were left out (--max_bad allows 2)"
    assert left_out.stderr == f"warning: {warning}: {bad}, {bad.parent}/y.wav\n"
    rejected = f"{bad}\t{text}\n{bad.parent}/y.wav\t{bad.parent}/y.wav: empty file; {AGAIN}\n"
    assert (out / "rejected.tsv").read_text() == rejected
    assert json.loads((out / "test/preparation.json").read_text()) == {"rejected": 2}
    assert folder(None, "--max_bad", "2").stdout == f"{out}: complete\n"
    assert folder(None).returncode == 1  # what was allowed once is not allowed for ever
    (bad.parent / "y.wav").unlink()
    assert folder(wave(), "--max_bad", "2").returncode == 0 and not (out / "rejected.tsv").exists()
    wrong = folder(wave(), "--max_bad", "some")
    assert wrong.returncode == 2 and "argument --max_bad: 'some': expected an integer" in wrong.stderr
