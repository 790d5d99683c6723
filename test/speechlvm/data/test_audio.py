"""Audio files: exact samples from good ones, and one line that names the error for bad ones."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import programs
import pytest
import soundfile
from imitations.audio import (
    AGAIN,
    FFMPEG,
    PCM,
    RATE_HZ,
    SAMPLES,
    chunk,
    floats,
    replaced,
    save,
    sphere,
    streamed_flac,
    wave,
)

from speechlvm.bin import dump as dump_program
from speechlvm.bin import validate_data_dir
from speechlvm.data.audio import audio_info, check_format, read_audio, write_wav
from speechlvm.data.dumps import open_dump
from speechlvm.data.kaldi.recordings import VALIDATE
from speechlvm.utils.errors import UserError

FLAC = save(format="FLAC")
EXTREMA = {"sample_min": f"-i {SAMPLES.min()}", "sample_max": f"-i {SAMPLES.max()}"}
ID3V2, ID3V1 = b"ID3\x04\0\0\0\0\0\x03abc", b"TAG" + b"Take one".ljust(125, b"\0")
NOTE = chunk(b"LIST", b"INFO!")  # of odd size, without its pad byte

# contents, and the oddity that is recorded ("": none)
GOOD = {
    "sphere": (sphere(), ""),
    "big-endian sphere": (sphere(SAMPLES.astype(">i2").tobytes(), sample_byte_format="-s2 10"), ""),
    "sphere without a coding": (sphere(sample_coding=None), ""),
    "sphere with extrema": (sphere(**EXTREMA), ""),
    "sphere with stale extrema": (sphere(sample_min="-i -5", sample_max="-i 5"), ""),  # they prove nothing
    "sphere with zeros": (sphere() + bytes(3), "3 bytes after the data"),
    "wav": (wave(), ""),
    "wav with chunks": (wave(extra=chunk(b"LIST", b"abc\0")) + chunk(b"LIST", b"tail"), ""),
    "extensible wav": (save(format="WAVEX"), ""),
    "flac": (FLAC, ""),
    "one byte more": (wave() + b"x", "1 byte after the data"),
    "zeros up to a sector": (wave() + bytes(212), "212 bytes after the data"),
    "70001 zeros": (wave() + bytes(70001), "70001 bytes after the data"),
    "255 up to a sector": (wave() + b"\xff" * 212, "212 bytes after the data"),
    "a pad byte too many": (wave() + b"\0" + chunk(b"LIST", bytes(99)), "108 bytes after the data"),
    "an ID3v1 tag": (wave() + ID3V1, "128 bytes after the data"),
    "an ID3v2 tag": (ID3V2 + wave(), ""),
    "a truncated note": (wave() + chunk(b"LIST", bytes(range(99)), 255), "107 bytes after the data"),
    "half a sample": (wave(PCM + b"x"), "1 byte of an incomplete sample"),
    "size rounded up": (wave(size=len(PCM) + 2), "2 bytes less than its header says"),
    "size with the header": (wave(size=len(PCM) + 44), "44 bytes less than its header says"),
    "size with a long header": (
        wave(size=len(PCM) + 144, extra=chunk(b"JUNK", bytes(92))), "144 bytes less than its header says"
    ),
    "no pad byte": (wave(extra=NOTE), "a chunk without its pad byte"),
    "no pad byte before fmt": (wave()[:12] + NOTE + wave()[12:], "a chunk without its pad byte"),
    "a size too small": (wave(extra=chunk(b"LIST", b"INFO!!", 1)), "a chunk with a wrong size"),
    "a size too large": (wave(extra=chunk(b"LIST", b"INFO!!", 13)), "a chunk with a wrong size"),
    "block align": (replaced(wave(), 32, b"\1\0"), "block align 1"),
    "byte rate": (replaced(wave(), 28, b"\1\0"), ""),
    "size of RIFF": (replaced(wave(), 4, bytes(4)), ""),
}  # fmt: skip

SOX = "convert it, for example with: sox {source}"
TO_16_BITS = f"{SOX} -b 16 -e signed-integer {{target}}"
NOT_COMPARABLE = "samples; expected 16-bit PCM, as bits per frame of other codings cannot be compared"
NOT_16_BITS = f"{NOT_COMPARABLE}; {TO_16_BITS}"
STREAMED = "as after writing to a pipe; a truncated file looks the same; if it is complete, "
STREAMED += "convert it, for example with: "
STREAMED_WAV = f"found 4800, {STREAMED}sox --ignore-length {{source}} {{target}}"
SOX_OR_NOT = "if they are audio, convert it, for example with: sox --ignore-length {source} {target}; if not, "
SOX_OR_NOT += "the same without --ignore-length"
UNKNOWN = f"expected NIST SPHERE, RIFF WAVE or FLAC; if it is audio, {FFMPEG}"
NOT_REGULAR = "not a regular readable file; give the path of an audio file"
MISSING = "check the path, or mount the corpus"
MONO = f"2 channels; expected 1, as channels are never summed; {SOX} {{target}} remix 1"
TEXT_MODE = sphere().replace(b"\n", b"\r\n") + bytes(9)

# contents or how to make the file, and the message after the path; the header shows all of it
BAD = {
    "missing": (lambda path: None, f"no such file; {MISSING}"),
    "dangling": (lambda path: path.symlink_to("nowhere"), f"dangling symbolic link; {MISSING}"),
    "directory": (lambda path: path.mkdir(), NOT_REGULAR),
    "FIFO": (os.mkfifo, NOT_REGULAR),
    "endless": (lambda path: path.symlink_to("/dev/zero"), NOT_REGULAR),
    "empty": (b"", f"empty file; {AGAIN}"),
    "text": (b"Hello world, this is text", f"unknown format, starts with b'Hello world, thi'; {UNKNOWN}"),
    "page": (b"<!DOCTYPE html><html>404", f"unknown format, starts with b'<!DOCTYPE html><'; {UNKNOWN}"),
    "mp3": (b"ID3\4" + bytes(99), f"unknown format, starts with {b'ID3' + bytes([4] + 12 * [0])}; {UNKNOWN}"),
    "wav cut in mid-data": (wave()[:-3000], f"header says 4800 samples, found 3300; {AGAIN}"),
    "wav cut after the header": (wave()[:44], f"header says 4800 samples, found 0; {AGAIN}"),
    "wav cut before the data": (wave()[:36], f"RIFF WAVE without a data chunk; {AGAIN}"),
    "wav cut in its header": (wave()[:30], f"RIFF WAVE without a fmt chunk; {AGAIN}"),
    "wav cut by more than a header": (wave(size=len(PCM) + 46), f"header says 4823 samples, found 4800; {AGAIN}"),
    "RF64 cut in its header": (b"RF64\xff\xff\xff\xffWAVEds64", f"RIFF WAVE without a fmt chunk; {AGAIN}"),
    "wav without data": (wave(b""), f"no samples; {AGAIN}, or remove it"),
    "wav with a lie": (wave(size=0x70000000), f"header says 939524096 samples, found 4800; {AGAIN}"),
    "wav says too little": (
        wave(size=9000), f"600 bytes after the 4500 samples that its header says are in no chunk; {SOX_OR_NOT}"
    ),
    "wav with two data chunks": (
        wave() + chunk(b"data", b"more"), ("a second data chunk, of 4 bytes, which programs ignore; save the file with "
        "one, in the program that wrote it, or split it into two files")
    ),
    "ffmpeg's placeholder": (wave(size=0xFFFFFFFF), f"header says 2147483647 samples, {STREAMED_WAV}"),
    "sox's placeholder": (wave(size=0x7FFFF000), f"header says 1073739776 samples, {STREAMED_WAV}"),
    "a recorder's placeholder": (wave(size=0), f"header says 0 samples, {STREAMED_WAV}"),
    "flac's placeholder": (streamed_flac(FLAC), f"header says 0 samples, {STREAMED}sox {{source}} {{target}}"),
    "NaN": (floats(0, 0.5, 0, np.nan), f"sample 3 is nan; expected 16-bit PCM; {TO_16_BITS}"),
    "inf in doubles": (floats(0, -np.inf, bits=64), f"sample 1 is -inf; expected 16-bit PCM; {TO_16_BITS}"),
    "float that clips": (
        floats(0, 1.5), f"32-bit float samples that would clip (peak 1.500); expected 16-bit PCM; {TO_16_BITS}"
    ),
    "float": (
        floats(0, 0.5),
        f"32-bit float samples; expected 16-bit PCM, as only its likelihoods can be compared; {TO_16_BITS}",
    ),
    "24 bits": (wave(bits=24), f"24-bit {NOT_16_BITS}"),
    "32 bits": (wave(bits=32), f"32-bit {NOT_16_BITS}"),
    "8 bits": (wave(bits=8), f"8-bit {NOT_16_BITS}"),
    "mu-law": (wave(tag=7, bits=8), f"8-bit mu-law {NOT_16_BITS}"),
    "A-law": (wave(tag=6, bits=8), f"8-bit A-law {NOT_16_BITS}"),
    "sphere mu-law": (
        sphere(sample_count="-i 9600", sample_n_bytes="-i 1", sample_coding="-s4 ulaw"), f"8-bit ulaw {NOT_16_BITS}"
    ),
    "GSM 6.10": (save(subtype="GSM610"), f"GSM 6.10 {NOT_COMPARABLE}; {FFMPEG}"),
    "unknown coding": (wave(tag=0x161), f"RIFF WAVE with coding 0x0161, which is not supported; {FFMPEG}"),
    "stereo": (wave(channels=2), MONO),
    "sphere stereo": (sphere(sample_count="-i 2400", channel_count="-i 2"), MONO),
    "8 kHz": (wave(rate_hz=8000), f"sampling rate 8000 Hz; expected 16000 Hz; {SOX} -r 16000 {{target}}"),
    "sphere 44.1 kHz": (
        sphere(sample_rate="-i 44100"), f"sampling rate 44100 Hz; expected 16000 Hz; {SOX} -r 16000 {{target}}"
    ),
    "shorten": (
        sphere(sample_coding="-s26 pcm,embedded-shorten-v2.00"),
        ("SPHERE with compression (pcm,embedded-shorten-v2.00), which is not supported; run: sph2pipe -f wav {source} "
        "{pcm}"),
    ),
    "sphere cut": (sphere()[:-2], f"header says 4800 samples, found 4799; {AGAIN}"),
    "sphere too long": (sphere() + b"xx", f"2 bytes more than the 4800 samples that its header says; {AGAIN}"),
    "sphere after a text transfer": (
        TEXT_MODE, f"{len(TEXT_MODE) - 10624} bytes more than the 4800 samples that its header says; {AGAIN}"
    ),
    "sphere header of odd size": (
        sphere(size=1023), f"1 byte more than the 4800 samples that its header says; {AGAIN}"
    ),
    "sphere with a lie": (
        sphere(sample_count="-i 2147483647"), f"header says 2147483647 samples, found 4800; {AGAIN}"
    ),
    "sphere without samples": (sphere(b""), f"no samples; {AGAIN}, or remove it"),
    "no byte order": (
        sphere(sample_byte_format=None), f"sample_byte_format is missing; expected 01 (little-endian) or 10; {AGAIN}"
    ),
    "odd byte order": (
        sphere(sample_byte_format="-s2 11"), f"sample_byte_format is '11'; expected 01 (little-endian) or 10; {AGAIN}"
    ),
    "no count": (sphere(sample_count=None), f"SPHERE header without sample_count; {AGAIN}"),
    "count no number": (
        sphere(sample_count="-s3 abc"), f"SPHERE header: sample_count is 'abc'; expected a number; {AGAIN}"
    ),
    "negative count": (sphere(sample_count="-i -1"), f"SPHERE header: sample_count is -1; {AGAIN}"),
    "no channels": (sphere(channel_count="-i 0"), f"SPHERE header: channel_count is 0; {AGAIN}"),
    "lines run together": (
        sphere().replace(b"16000\nchannel", b"16000\x85channel"),
        f"SPHERE header: sample_rate is '16000\\x85channel_count -i 1'; expected a number; {AGAIN}",
    ),
    "sphere size no number": (
        b"NIST_1A\n   abcd\n" + bytes(2000), f":2: SPHERE header size b'   abcd\\n'; expected a number; {AGAIN}"
    ),
    "sphere size negative": (sphere(size=-5), f":2: SPHERE header of -5 bytes in a file of 10624 bytes; {AGAIN}"),
    "sphere header cut": (sphere()[:100], f":2: SPHERE header of 1024 bytes in a file of 100 bytes; {AGAIN}"),
    "sphere without an end": (
        sphere().replace(b"end_head", b"end_tail"), f"SPHERE header of 1024 bytes has no end_head; {AGAIN}"
    ),
    "flac cut in its header": (FLAC[:20], f"FLAC without a STREAMINFO block; {AGAIN}"),
}  # fmt: skip

# what only the samples show
BAD_SAMPLES = {
    "wrong byte order": (
        sphere(SAMPLES.astype(">i2").tobytes(), **EXTREMA),
        ("samples are in the other byte order than sample_byte_format says (sample_min and sample_max agree only with "
        f"swapped bytes); {AGAIN}"),
    ),
    "other MD5 sum": (
        replaced(FLAC, 30, bytes(2)), f"decoded samples differ from the MD5 sum in the FLAC header; {AGAIN}"
    ),
    "flac cut after a frame": (FLAC[: FLAC.rindex(b"\xff\xf8")], f"header says 4800 samples, found 4096; {AGAIN}"),
    "flac cut in a frame": (FLAC[:-1000], f"damaged FLAC (Error : flac decoder lost sync.); {AGAIN}"),
    "damaged frame": (
        replaced(FLAC, 5000, b"\x55\xaa\x55"), f"damaged FLAC (Error : flac decoder lost sync.); {AGAIN}"
    ),
    "flac with a lie": (
        replaced(FLAC, 21, b"\xff" * 5), f"header says 68719476735 samples, found 4800; {AGAIN}"
    ),
}  # fmt: skip


def put(directory: Path, made, name="a b.wav") -> Path:
    """A file with these contents, or made by this function."""
    path = directory / name
    path.write_bytes(made) if isinstance(made, bytes) else made(path)
    return path


def full_message(path: Path, message: str) -> str:
    """A message of the tables."""
    stem = path.with_suffix("")
    words = {"source": path, "target": f"{stem}.converted.wav", "pcm": f"{stem}.pcm.wav"}
    separator = "" if message.startswith(":") else ": "
    return f"{path}{separator}{message.format_map({name: shlex.quote(str(word)) for name, word in words.items()})}"


@pytest.mark.parametrize("content, oddity", GOOD.values(), ids=GOOD)
def test_exact_samples_whatever_the_name(tmp_path, content, oddity):
    path = put(tmp_path, content, "a b.txt")
    samples = read_audio(path)
    assert samples.dtype == np.int16 and samples.dtype.isnative and np.array_equal(samples, SAMPLES)
    info = audio_info(path)
    assert (info.num_samples, info.bits, info.channels, info.rate_hz) == (4800, 16, 1, 16000)
    assert info.oddities == ((oddity,) if oddity else ())


@pytest.mark.parametrize("made, message", BAD.values(), ids=BAD)
def test_bad_files_are_refused_with_the_reason(tmp_path, made, message):
    path = put(tmp_path, made)
    for read in (read_audio, lambda path: check_format(audio_info(path), RATE_HZ)):
        with pytest.raises(UserError) as error:
            read(path)
        assert str(error.value) == full_message(path, message) and error.value.exit_status == 1


@pytest.mark.parametrize("content, message", BAD_SAMPLES.values(), ids=BAD_SAMPLES)
def test_bad_samples_are_refused_with_the_reason(tmp_path, content, message):
    path = put(tmp_path, content)
    check_format(audio_info(path), RATE_HZ)
    with pytest.raises(UserError) as error:
        read_audio(path)
    assert str(error.value) == full_message(path, message)


def test_what_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path = put(tmp_path, wave())
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=r"not a regular readable file \(Permission denied\); check its permissions"):
        read_audio(path)
    monkeypatch.undo()
    with pytest.raises(UserError, match="not a regular readable file"):
        read_audio("a\0b")


@pytest.mark.parametrize("tags", [(b"", b""), (ID3V2, ID3V1)], ids=["plain", "with tags"])
def test_streamed_flac(tmp_path, tags):
    path = put(tmp_path, tags[0] + streamed_flac(FLAC) + tags[1])
    assert np.array_equal(read_audio(path, allow_streamed=True), SAMPLES)
    path.write_bytes(tags[0] + FLAC + tags[1])
    assert np.array_equal(read_audio(path), SAMPLES)


@pytest.mark.parametrize("samples", [np.zeros(1, np.int16), np.zeros(9999, np.int16), np.full(7, -32768, np.int16)])
def test_written_files_are_read_back(tmp_path, samples):
    write_wav(tmp_path / "a.wav", samples, 8000)
    assert np.array_equal(read_audio(tmp_path / "a.wav", 8000), samples)
    assert np.array_equal(soundfile.read(tmp_path / "a.wav", dtype="int16")[0], samples)
    assert os.listdir(tmp_path) == ["a.wav"]


def test_sample_corpus_agrees_with_libsndfile(timit_sample):
    paths = sorted(timit_sample.glob("TEST/*/*/*.WAV"))
    assert paths
    for path in paths:
        assert np.array_equal(read_audio(path), soundfile.read(path, dtype="int16")[0])


# --- Programs ---------------------------------------------------------------------------------------------------------


def data_directory(root: Path, bad: Path, num_samples: int = 4800) -> Path:
    """A data directory of a good file and of another one."""
    write_wav(root / "a.wav", SAMPLES, RATE_HZ)
    files = {
        "wav.scp": f"s-a {root}/a.wav\ns-b {bad}\n", "utt2spk": "s-a s\ns-b s\n", "spk2utt": "s s-a s-b\n",
        "utt2num_samples": f"s-a 4800\ns-b {num_samples}\n",
    }  # fmt: skip
    (root / "data").mkdir()
    for name, text in files.items():
        (root / "data" / name).write_text(text)
    return root / "data"


@pytest.mark.parametrize("name", ["missing", "stereo", "flac cut in a frame"])
def test_bad_audio_is_neither_valid_nor_dumped(tmp_path, name):
    made, message = (BAD | BAD_SAMPLES)[name]
    bad = put(tmp_path, made)
    message, data = full_message(bad, message), data_directory(tmp_path, bad)
    checked = programs.call(validate_data_dir.main, data)
    expected = "" if name in BAD_SAMPLES else f"error: {data}/wav.scp:2: s-b: {message}\n"
    assert (checked.returncode, checked.stderr) == (int(name in BAD), expected)
    dumped = programs.call(dump_program.main, "--data", data, "--out", tmp_path / "dump")
    if name == "missing":  # found before the first file is opened
        message = f"{bad}: No such file or directory; {VALIDATE} on the data directory"
    assert (dumped.returncode, dumped.stderr) == (1, f"error: {message}\n")
    assert not (tmp_path / "dump/done.json").exists() and not list((tmp_path / "dump").glob("*.ark"))


def test_oddities_are_counted_in_one_warning(tmp_path):
    data = data_directory(tmp_path, put(tmp_path, wave() + bytes(212)))
    valid = programs.call(validate_data_dir.main, data, data)
    kind = "audio files have malformed headers that other programs accept"
    odd = "s-b (212 bytes after the data)"
    assert (valid.returncode, valid.stderr) == (0, f"warning: 2 {kind}: {odd}, {odd}\n")


HALF_AN_HOUR = 1800 * RATE_HZ
MEMORY = """
import re, sys
from speechlvm.bin import dump
for data in sys.argv[1:]:
    dump.main(["--data", data, "--out", data + "/dump"])
    print(re.search(r"VmHWM:\\s+([0-9]+) kB", open("/proc/self/status").read())[1])
"""


def test_hours_are_dumped_in_the_memory_of_seconds(tmp_path):
    with open(tmp_path / "long.wav", "wb") as file:
        file.write(wave(b"", size=2 * HALF_AN_HOUR))
        file.truncate(44 + 2 * HALF_AN_HOUR)
    directories = []
    for name, path, frames in (("x", "a.wav", 4800), ("y", "long.wav", HALF_AN_HOUR)):
        (tmp_path / name).mkdir()
        directories.append(data_directory(tmp_path / name, tmp_path / path, frames))
    write_wav(tmp_path / "a.wav", SAMPLES, RATE_HZ)
    done = subprocess.run([sys.executable, "-c", MEMORY, *directories], capture_output=True, text=True, check=True)
    before, after = (int(line) for line in done.stdout.splitlines() if line.isdecimal())
    assert after - before < 8000  # kB; the samples are 57 600 kB
    dump = open_dump(directories[1] / "dump")
    assert dump.records["s-b"].frames == HALF_AN_HOUR and dump.histogram[32768] == HALF_AN_HOUR + (SAMPLES == 0).sum()
