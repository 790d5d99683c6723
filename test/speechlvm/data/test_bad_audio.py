"""Audio that is not what it should be, as users meet it: in checks of data directories, in dumps and in preparation.

Each case says to the letter what a program prints before it ends with status 1.
"""

import io
import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import programs
import pytest
import soundfile

from speechlvm.bin import dump as dump_program
from speechlvm.bin import validate_data_dir
from speechlvm.data.audio import write_wav

ROOT = Path(__file__).resolve().parents[3]
LOCAL = ROOT / "egs/wavdir/local"
RATE_HZ = 16000
SAMPLES = np.random.default_rng(0).integers(-3000, 3000, 4800).astype(np.int16)
PCM = SAMPLES.astype("<i2").tobytes()


def wave(data=PCM, tag=1, channels=1, rate_hz=RATE_HZ, bits=16, size=None) -> bytes:
    """RIFF WAVE with any header; `size` in place of the number of bytes of data."""
    width = channels * bits // 8
    layout = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * width, width, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + layout
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def floats(*values: float) -> bytes:
    """32-bit floating point."""
    return wave(np.array(values, "<f4").tobytes(), tag=3, bits=32)


def sphere(data=PCM, count=None, **fields: str | None) -> bytes:
    """NIST SPHERE with any header; a field of None is left out."""
    values = {
        "sample_count": f"-i {len(data) // 2 if count is None else count}", "sample_rate": "-i 16000",
        "channel_count": "-i 1", "sample_n_bytes": "-i 2", "sample_byte_format": "-s2 01", "sample_coding": "-s3 pcm",
        **fields,
    }  # fmt: skip
    lines = [f"{name} {value}" for name, value in values.items() if value is not None]
    return "\n".join(["NIST_1A", "   1024", *lines, "end_head", ""]).encode().ljust(1024) + data


def flac(place=0, *values: int) -> bytes:
    """FLAC with other bytes from `place` on."""
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, RATE_HZ, format="FLAC", subtype="PCM_16")
    content = bytearray(file.getvalue())
    content[place : place + len(values)] = bytes(values)
    return bytes(content)


EXTREMA = {"sample_min": f"-i {SAMPLES.min()}", "sample_max": f"-i {SAMPLES.max()}"}
AGAIN = "copy the file again from its source"
SOX = "convert it, for example with: sox {path}"
TO_16_BITS = f"{SOX} -b 16 -e signed-integer {{stem}}.converted.wav"
NOT_16_BITS = f"samples; expected 16-bit PCM, as bits per frame of other codings cannot be compared; {TO_16_BITS}"
STREAMED = (
    "as where a program has written into a pipe; expected their number, as a file that was cut looks the same; if it "
    "is whole, convert it, for example with: sox"
)
SPH2PIPE = "which is not decoded here; run: sph2pipe -f wav {path} {stem}.pcm.wav"
ORDER = "samples are in the other byte order than sample_byte_format says (sample_min and sample_max agree only with"
NO_AUDIO = "expected NIST SPHERE, RIFF WAVE or FLAC"
NOT_REGULAR = "not a regular readable file; give the path of an audio file"
MISSING = "check the path, or mount the corpus"

# number of the row in the table of bad inputs, and what is bad: (contents or how to make the file, message)
FILES = {
    "1 cut": (wave()[:-3000], f"header says 4800 samples, found 3300; {AGAIN}"),
    "2 no data": (wave(b""), f"no samples; {AGAIN}, or remove it"),
    "2 header only": (wave()[:44], f"header says 4800 samples, found 0; {AGAIN}"),
    "2 less than a header": (wave()[:36], f"RIFF WAVE without a data chunk; {AGAIN}"),
    "3 empty": (b"", f"empty file; {AGAIN}"),
    "4 ffmpeg's placeholder": (
        wave(size=0xFFFFFFFF),
        f"header says 2147483647 samples, found 4800, {STREAMED} --ignore-length {{path}} {{stem}}.converted.wav",
    ),
    "4 sox's placeholder": (
        wave(size=0x7FFFF000),
        f"header says 1073739776 samples, found 4800, {STREAMED} --ignore-length {{path}} {{stem}}.converted.wav",
    ),
    "4 flac's placeholder": (
        flac(21, 0xF0, 0, 0, 0, 0), f"header says 0 samples, {STREAMED} {{path}} {{stem}}.converted.wav"
    ),
    "4 lie": (wave(size=0x70000000), f"header says 939524096 samples, found 4800; {AGAIN}"),
    "4 lie of sphere": (sphere(count=2**31 - 1), f"header says 2147483647 samples, found 4800; {AGAIN}"),
    "5 NaN": (floats(0, 0.5, 0, np.nan), f"sample 3 is nan; expected 16-bit PCM; {TO_16_BITS}"),
    "5 infinite": (floats(0, -np.inf), f"sample 1 is -inf; expected 16-bit PCM; {TO_16_BITS}"),
    "6 float beyond full scale": (
        floats(0, 1.5), f"32-bit float samples that would clip (peak 1.500); expected 16-bit PCM; {TO_16_BITS}"
    ),
    "7 float": (
        floats(0, 0.5),
        f"32-bit float samples; expected 16-bit PCM, as only its likelihoods can be compared; {TO_16_BITS}",
    ),
    "8 24 bits": (wave(bits=24), f"24-bit {NOT_16_BITS}"),
    "8 32 bits": (wave(bits=32), f"32-bit {NOT_16_BITS}"),
    "8 8 bits": (wave(bits=8), f"8-bit {NOT_16_BITS}"),
    "9 mu-law": (wave(tag=7, bits=8), f"8-bit mu-law {NOT_16_BITS}"),
    "9 A-law": (wave(tag=6, bits=8), f"8-bit A-law {NOT_16_BITS}"),
    "9 mu-law in sphere": (
        sphere(count=9600, sample_n_bytes="-i 1", sample_coding="-s4 ulaw"), f"8-bit ulaw {NOT_16_BITS}"
    ),
    "10 stereo": (
        wave(channels=2),
        f"2 channels; expected 1, as channels are never summed; {SOX} {{stem}}.converted.wav remix 1",
    ),
    "11 8 kHz": (
        wave(rate_hz=8000),
        f"sampling rate 8000 Hz; expected 16000 Hz; {SOX} -r 16000 {{stem}}.converted.wav",
    ),
    "11 44.1 kHz": (
        wave(rate_hz=44100),
        f"sampling rate 44100 Hz; expected 16000 Hz; {SOX} -r 16000 {{stem}}.converted.wav",
    ),
    "12 text": (b"Hello world, this is text", f"not audio: starts with b'Hello world, thi'; {NO_AUDIO}"),
    "12 mp3": (b"ID3\4" + bytes(99), f"not audio: starts with {b'ID3' + bytes([4] + 12 * [0])}; {NO_AUDIO}"),
    "12 page": (b"<!DOCTYPE html><html>404", f"not audio: starts with b'<!DOCTYPE html><'; {NO_AUDIO}"),
    "13 missing": (lambda path: None, f"no such file; {MISSING}"),
    "13 dangling": (lambda path: path.symlink_to("nowhere"), f"dangling symbolic link; {MISSING}"),
    "14 directory": (lambda path: path.mkdir(), NOT_REGULAR),
    "14 FIFO": (os.mkfifo, NOT_REGULAR),
    "14 endless": (lambda path: path.symlink_to("/dev/zero"), NOT_REGULAR),
    "15 RF64": (
        b"RF64" + wave()[4:], "RF64, for files of 4 GiB and more; cut it into utterances and save them as RIFF WAVE"
    ),
    "19 shorten": (
        sphere(sample_coding="-s26 pcm,embedded-shorten-v2.00"),
        f"SPHERE with compression (pcm,embedded-shorten-v2.00), {SPH2PIPE}",
    ),
    "20 no byte order": (
        sphere(sample_byte_format=None),
        f"sample_byte_format is missing; expected 01 (little-endian) or 10; {AGAIN}",
    ),
    "20 odd byte order": (
        sphere(sample_byte_format="-s2 11"),
        f"sample_byte_format is '11'; expected 01 (little-endian) or 10; {AGAIN}",
    ),
    "20 short header": (sphere()[:100], f":2: SPHERE header of 1024 bytes in a file of 100 bytes; {AGAIN}"),
}  # fmt: skip

# What only the samples show: directories are valid, dumps are refused.
SAMPLES_ONLY = {
    "20 wrong byte order": (
        sphere(SAMPLES.astype(">i2").tobytes(), **EXTREMA),
        f"{ORDER} swapped bytes); {AGAIN}",
    ),
    "21 other MD5 sum": (flac(30, 0, 0), f"decoded samples differ from the MD5 sum in the FLAC header; {AGAIN}"),
    "21 cut after a frame": (
        flac()[: flac().rindex(b"\xff\xf8")],
        f"damaged FLAC (Internal psf_fseek() failed.); {AGAIN}",
    ),
    "21 cut in a frame": (flac()[:-1000], f"damaged FLAC (Error : flac decoder lost sync.); {AGAIN}"),
    "21 damaged frame": (flac(5000, 0x55, 0xAA, 0x55), f"damaged FLAC (Error : flac decoder lost sync.); {AGAIN}"),
}


@pytest.fixture
def directory(tmp_path):
    """directory(made): a data directory of a good file, and of one with these contents, or made by this function."""

    def make(made: bytes | object) -> tuple[Path, Path]:
        data, bad = tmp_path / "data", tmp_path / "b.wav"
        data.mkdir()
        write_wav(tmp_path / "a.wav", SAMPLES, RATE_HZ)
        bad.write_bytes(made) if isinstance(made, bytes) else made(bad)
        tables = {
            "wav.scp": f"s-a {tmp_path}/a.wav\ns-b {bad}\n", "utt2spk": "s-a s\ns-b s\n", "spk2utt": "s s-a s-b\n",
            "utt2num_samples": "s-a 4800\ns-b 4800\n",
        }  # fmt: skip
        for name, text in tables.items():
            (data / name).write_text(text)
        return data, bad

    return make


def run_dump(data: Path, *options: str) -> subprocess.CompletedProcess:
    return programs.call(dump_program.main, "--data", data, "--out", data.parent / "dump", *options)


@pytest.mark.parametrize("made, message", FILES.values(), ids=FILES)
def test_neither_valid_nor_dumped(directory, made, message):
    data, bad = directory(made)
    message = message.format(path=bad, stem=bad.with_suffix(""))
    message = f"{bad}{'' if message.startswith(':') else ': '}{message}"
    checked = programs.call(validate_data_dir.main, data)
    assert (checked.returncode, checked.stderr) == (1, f"error: {data}/wav.scp:2: s-b: {message}\n")
    dumped = run_dump(data)
    if not bad.exists():  # found before the first file is opened
        message = f"{bad}: No such file or directory; run utils/validate_data_dir.sh on the data directory"
    assert (dumped.returncode, dumped.stderr) == (1, f"error: {message}\n")
    assert not (data.parent / "dump/done.json").exists() and not list((data.parent / "dump").glob("*.ark"))


@pytest.mark.parametrize("content, message", SAMPLES_ONLY.values(), ids=SAMPLES_ONLY)
def test_not_dumped(directory, content, message):
    data, bad = directory(content)
    assert programs.call(validate_data_dir.main, data).returncode == 0
    dumped = run_dump(data)
    assert (dumped.returncode, dumped.stderr) == (1, f"error: {bad}: {message}\n")
    assert not (data.parent / "dump/done.json").exists() and not list((data.parent / "dump").glob("*.ark"))
