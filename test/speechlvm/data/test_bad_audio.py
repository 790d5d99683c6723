"""Audio that is not what it should be, as users meet it: in checks of data directories, in dumps and in preparation.

Each case says to the letter what a program prints before it ends with status 1.
"""

import contextlib
import io
import os
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import programs
import pytest
import soundfile

from speechlvm.bin import dump as dump_program
from speechlvm.bin import validate_data_dir
from speechlvm.data.audio import read_audio, write_wav
from speechlvm.data.dumps import open_dump
from speechlvm.data.kaldi.directory import load_data_dir
from speechlvm.data.kaldi.recordings import VALIDATE

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


def coded(subtype: str, **options: str) -> bytes:
    """As libsndfile writes it."""
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, RATE_HZ, **{"format": "WAV", **options}, subtype=subtype)
    return file.getvalue()


def decoded(content: bytes) -> np.ndarray:
    """As libsndfile reads it."""
    return np.rint(soundfile.read(io.BytesIO(content))[0] * 32768)


EXTREMA = {"sample_min": f"-i {SAMPLES.min()}", "sample_max": f"-i {SAMPLES.max()}"}
AGAIN = "copy the file again from its source"
SOX = "convert it, for example with: sox {source}"
SOX_OR_NOT = "if they are audio, convert it, for example with: sox --ignore-length {source} {target}; if not, "
SOX_OR_NOT += "the same without --ignore-length"
TO_16_BITS = f"{SOX} -b 16 -e signed-integer {{target}}"
NOT_16_BITS = f"samples; expected 16-bit PCM, as bits per frame of other codings cannot be compared; {TO_16_BITS}"
STREAMED = (
    "as where a program has written into a pipe; expected their number, as a file that was cut looks the same; if it "
    "is whole, convert it, for example with: sox"
)
SPH2PIPE = "which is not decoded here; run: sph2pipe -f wav {source} {pcm}"
ORDER = "samples are in the other byte order than sample_byte_format says (sample_min and sample_max agree only with"
FFMPEG = "convert it, for example with: ffmpeg -i {source} -c:a pcm_s16le {target}"
STARTS = "not audio that is read here: starts with"
NO_AUDIO = f"expected NIST SPHERE, RIFF WAVE or FLAC; if it is audio, {FFMPEG}"
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
        f"header says 2147483647 samples, found 4800, {STREAMED} --ignore-length {{source}} {{target}}",
    ),
    "4 sox's placeholder": (
        wave(size=0x7FFFF000),
        f"header says 1073739776 samples, found 4800, {STREAMED} --ignore-length {{source}} {{target}}",
    ),
    "4 hardly begun": (
        wave(size=0),
        f"header says 0 samples, found 4800, {STREAMED} --ignore-length {{source}} {{target}}",
    ),
    "4 flac's placeholder": (
        flac(21, 0xF0, 0, 0, 0, 0), f"header says 0 samples, {STREAMED} {{source}} {{target}}"
    ),
    "4 lie": (wave(size=0x70000000), f"header says 939524096 samples, found 4800; {AGAIN}"),
    "4 header says too little": (
        wave(size=9000), f"600 bytes behind the 4500 samples that its header says are in no chunk; {SOX_OR_NOT}"
    ),
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
    "9 GSM 6.10": (
        coded("GSM610"),
        "GSM 6.10 samples; expected 16-bit PCM, as bits per frame of other codings cannot be compared; " + FFMPEG,
    ),
    "9 mu-law in sphere": (
        sphere(count=9600, sample_n_bytes="-i 1", sample_coding="-s4 ulaw"), f"8-bit ulaw {NOT_16_BITS}"
    ),
    "10 stereo": (
        wave(channels=2),
        f"2 channels; expected 1, as channels are never summed; {SOX} {{target}} remix 1",
    ),
    "11 8 kHz": (
        wave(rate_hz=8000),
        f"sampling rate 8000 Hz; expected 16000 Hz; {SOX} -r 16000 {{target}}",
    ),
    "11 44.1 kHz": (
        wave(rate_hz=44100),
        f"sampling rate 44100 Hz; expected 16000 Hz; {SOX} -r 16000 {{target}}",
    ),
    "12 text": (b"Hello world, this is text", f"{STARTS} b'Hello world, thi'; {NO_AUDIO}"),
    "12 mp3": (b"ID3\4" + bytes(99), f"{STARTS} {b'ID3' + bytes([4] + 12 * [0])}; {NO_AUDIO}"),
    "12 page": (b"<!DOCTYPE html><html>404", f"{STARTS} b'<!DOCTYPE html><'; {NO_AUDIO}"),
    "13 missing": (lambda path: None, f"no such file; {MISSING}"),
    "13 dangling": (lambda path: path.symlink_to("nowhere"), f"dangling symbolic link; {MISSING}"),
    "14 directory": (lambda path: path.mkdir(), NOT_REGULAR),
    "14 FIFO": (os.mkfifo, NOT_REGULAR),
    "14 endless": (lambda path: path.symlink_to("/dev/zero"), NOT_REGULAR),
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
    "20 header of other length": (
        sphere().replace(b"   1024", b"   1023"), f"1 bytes more than the 4800 samples that its header says; {AGAIN}"
    ),
    "20 lines run together": (
        sphere().replace(b"16000\nchannel", b"16000\x85channel"),
        f"SPHERE header: sample_rate is '16000\\x85channel_count -i 1'; expected a number; {AGAIN}",
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
        f"header says 4800 samples, found 4096; {AGAIN}",
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


@contextlib.contextmanager
def nobody():
    """Without root's right to read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def names(path: Path) -> dict[str, str]:
    """A path, and, as a shell reads them, it and those of what it is converted to."""
    stem = path.with_suffix("")
    words = {"source": path, "target": f"{stem}.converted.wav", "pcm": f"{stem}.pcm.wav"}
    return {"path": str(path), **{name: shlex.quote(str(word)) for name, word in words.items()}}


def run_dump(data: Path, *options: str) -> subprocess.CompletedProcess:
    return programs.call(dump_program.main, "--data", data, "--out", data.parent / "dump", *options)


@pytest.mark.parametrize("made, message", FILES.values(), ids=FILES)
def test_neither_valid_nor_dumped(directory, made, message):
    data, bad = directory(made)
    message = message.format_map(names(bad))
    message = f"{bad}{'' if message.startswith(':') else ': '}{message}"
    checked = programs.call(validate_data_dir.main, data)
    assert (checked.returncode, checked.stderr) == (1, f"error: {data}/wav.scp:2: s-b: {message}\n")
    dumped = run_dump(data)
    if not bad.exists():  # found before the first file is opened
        message = f"{bad}: No such file or directory; {VALIDATE} on the data directory"
    assert (dumped.returncode, dumped.stderr) == (1, f"error: {message}\n")
    assert not (data.parent / "dump/done.json").exists() and not list((data.parent / "dump").glob("*.ark"))


@pytest.mark.parametrize("content, message", SAMPLES_ONLY.values(), ids=SAMPLES_ONLY)
def test_not_dumped(directory, content, message):
    data, bad = directory(content)
    assert programs.call(validate_data_dir.main, data).returncode == 0
    dumped = run_dump(data)
    assert (dumped.returncode, dumped.stderr) == (1, f"error: {bad}: {message}\n")
    assert not (data.parent / "dump/done.json").exists() and not list((data.parent / "dump").glob("*.ark"))


def test_13_all_missing_files_are_listed(directory):
    data, bad = directory(lambda path: None)
    (data.parent / "a.wav").unlink()
    checked = programs.call(validate_data_dir.main, data)
    assert checked.returncode == 1
    assert checked.stderr.splitlines() == [
        f"error: {data}/wav.scp:{number}: s-{name}: {bad.parent / name}.wav: no such file; {MISSING}"
        for number, name in ((1, "a"), (2, "b"))
    ]


def test_14_what_may_not_be_read():
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # others may not search pytest's own folders, nor $TMPDIR
        Path(name).chmod(0o755)
        path = Path(name, "a.wav")
        path.write_bytes(wave())
        path.chmod(0)
        (Path(name) / "wav.scp").write_text(f"s-a {path}\n")
        for table, text in {"utt2spk": "s-a s\n", "spk2utt": "s s-a\n", "utt2num_samples": "s-a 4800\n"}.items():
            (Path(name) / table).write_text(text)
        with nobody():
            checked = programs.call(validate_data_dir.main, name)
    reason = "not a regular readable file (Permission denied); check its permissions"
    assert (checked.returncode, checked.stderr) == (1, f"error: {name}/wav.scp:1: s-a: {path}: {reason}\n")


HALF_AN_HOUR = 1800 * RATE_HZ
MEMORY = """
import resource, sys
from speechlvm.bin import dump
for data in sys.argv[1:]:
    dump.main(["--data", data, "--out", data + "/dump"])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_15_hours_in_the_memory_of_seconds(directory, tmp_path):
    data, _ = directory(wave())
    long = tmp_path / "long"
    shutil.copytree(data, long)
    with open(tmp_path / "c.wav", "wb") as file:
        file.write(wave(b"", size=2 * HALF_AN_HOUR))
        file.truncate(44 + 2 * HALF_AN_HOUR)
    (long / "wav.scp").write_text(f"s-a {tmp_path}/a.wav\ns-b {tmp_path}/c.wav\n")
    (long / "utt2num_samples").write_text(f"s-a 4800\ns-b {HALF_AN_HOUR}\n")
    assert programs.call(validate_data_dir.main, long).returncode == 0
    done = subprocess.run([sys.executable, "-c", MEMORY, data, long], capture_output=True, text=True, check=True)
    before, after = (int(line) for line in done.stdout.splitlines() if line.isdecimal())
    assert after - before < 8000  # kB; the samples are 57 600 kB
    dump = open_dump(long / "dump")
    assert dump.records["s-b"].frames == HALF_AN_HOUR and dump.histogram[32768] == HALF_AN_HOUR + (SAMPLES == 0).sum()


def test_18_sphere_is_read_whatever_it_is_called(directory):
    data, _ = directory(sphere(SAMPLES.astype(">i2").tobytes(), sample_byte_format="-s2 10"))
    assert programs.call(validate_data_dir.main, data).returncode == 0
    assert run_dump(data).returncode == 0
    assert np.array_equal(open_dump(data.parent / "dump").read("s-b"), SAMPLES)


STREAMS = {"wav": wave(size=0xFFFFFFFF), "wav of 0": wave(size=0), "flac": flac(21, 0xF0, 0, 0, 0, 0)}


@pytest.mark.parametrize("content", STREAMS.values(), ids=STREAMS)
def test_4_a_command_that_ended_well_has_written_all(directory, content):
    data, bad = directory(content)
    (data / "wav.scp").write_text(f"s-a {data.parent}/a.wav\ns-b cat {shlex.quote(str(bad))} |\n")
    assert programs.call(validate_data_dir.main, data, "--allow_pipes").returncode == 0
    assert run_dump(data, "--allow_pipes").returncode == 0
    assert np.array_equal(open_dump(data.parent / "dump").read("s-b"), SAMPLES)


def test_odd_audio_is_told_once(directory):
    data, _ = directory(wave() + bytes(212))
    valid = programs.call(validate_data_dir.main, data, data)
    kind = "audio files have malformed headers that other programs accept"
    told = "s-b (212 bytes behind the data)"
    assert (valid.returncode, valid.stderr) == (0, f"warning: 2 {kind}: {told}, {told}\n")
    assert run_dump(data).returncode == 0
    assert np.array_equal(open_dump(data.parent / "dump").read("s-b"), SAMPLES)


# --- Preparation of a folder of one's own: what is allowed, and only when it is asked for -----------------------------


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

    def run(contents: bytes | None, *options: str) -> subprocess.CompletedProcess:
        if contents is not None:
            (root / "x.wav").write_bytes(contents)
        return programs.call(prepare.main, "--wav_dir", root, "--out", tmp_path / "out", *options)

    return run


ONE_CHANNEL = "take one with --channel 0 (or another), or the mean with --channel mix"
AWAY = "or move them away"
ROUND = f"round them all with --bits 16, {AWAY}"
NOT_INTEGERS = "1 file whose samples are not 16-bit integers, so that their bits per frame cannot be compared"
BEYOND = "1 samples beyond full scale (peak 1.500); scale the recording down, or let them be clipped, by --clip true"
STEREO = np.stack([SAMPLES[:2400], SAMPLES[2400:]], axis=1).astype("<i2").tobytes()
WIDE = b"".join((256 * int(value)).to_bytes(3, "little", signed=True) for value in SAMPLES)
DOUBTS = f"{STREAMED} --ignore-length {{source}} {{target}}; or believe all such files, by --allow_streamed true"

DOUBTS_OF_OTHERS = (
    f"{STREAMED.removesuffix('convert it, for example with: sox')}{FFMPEG}; or believe all such files, by"
)
DOUBTS_OF_OTHERS += " --allow_streamed true"
RF64 = coded("PCM_16", format="RF64")
RF64 = RF64[:20] + b"\xff" * 16 + RF64[36:]
AU = coded("PCM_16", format="AU")
AU = AU[:8] + b"\xff" * 4 + AU[12:]
AIFF = coded("PCM_16", format="AIFF")
AIFF = AIFF[:4] + bytes(4) + AIFF[8:]


def wide(shift: int) -> bytes:
    """24 bits in four bytes."""
    content = wave((SAMPLES.astype("<i4") << shift).tobytes(), bits=32)
    return content[:34] + struct.pack("<H", 24) + content[36:]


GSM = decoded(coded("GSM610"))[: len(SAMPLES)]  # libsndfile decodes a block that is not there behind an odd number
WIDE_LOW, WIDE_HIGH = wide(8), wide(16)
MP3 = coded("MPEG_LAYER_III", format="MP3")
MP3_LAYOUT = struct.pack("<IHHIIHHHHIHHH", 30, 0x55, 1, RATE_HZ, 8000, 1, 0, 12, 1, 2, 417, 1, 0)
MP3 = b"RIFF\0\0\0\0WAVEfmt " + MP3_LAYOUT + b"data" + struct.pack("<I", len(MP3)) + MP3

# what it is, contents, refusal, options that allow it, samples that come out, how they are described
CHOICES = {
    "4 streamed": (
        wave(size=0xFFFFFFFF), f"{{path}}: header says 2147483647 samples, found 4800, {DOUBTS}",
        ("--allow_streamed", "true"), SAMPLES, "wav of unknown length, 1 channel",
    ),
    "4 streamed, hardly begun": (
        wave(size=0), f"{{path}}: header says 0 samples, found 4800, {DOUBTS}",
        ("--allow_streamed", "true"), SAMPLES, "wav of unknown length, 1 channel",
    ),
    "4 flac": (
        flac(21, 0xF0, 0, 0, 0, 0), f"{{path}}: header says 0 samples, {DOUBTS.replace(' --ignore-length', '')}",
        ("--allow_streamed", "true"), SAMPLES, "flac of unknown length, 1 channel",
    ),
    "4 RF64": (
        RF64, f"{{path}}: header says {2**63 - 1} samples, found 4800, {DOUBTS}", ("--allow_streamed", "true"), SAMPLES,
        "wav of unknown length, 1 channel",
    ),
    "4 au": (
        AU, f"{{path}}: header says 4294967319 bytes, found 9624, {DOUBTS_OF_OTHERS}", ("--allow_streamed", "true"),
        SAMPLES, "au, 1 channel",
    ),
    "4 aiff": (
        AIFF, f"{{path}}: header says 8 bytes, found 9654, {DOUBTS_OF_OTHERS}", ("--allow_streamed", "true"),
        SAMPLES, "aiff, 1 channel",
    ),
    "8 24 bits without a pad byte": (
        wave(WIDE[:-3], bits=24) + b"LIST" + struct.pack("<I", 50) + bytes(range(50)),
        f"{NOT_INTEGERS}: {{path}}; {ROUND}", ("--bits", "16"), SAMPLES[:-1], "wav 24-bit, 1 channel",
    ),
    "8 24 bits in the low of 4 bytes": (
        WIDE_LOW, f"{NOT_INTEGERS}: {{path}}; {ROUND}", ("--bits", "16"), SAMPLES, "wav 24-bit (in 4 bytes), 1 channel"
    ),
    "8 24 bits in the high of 4 bytes": (
        WIDE_HIGH, f"{NOT_INTEGERS}: {{path}}; {ROUND}", ("--bits", "16"), SAMPLES, "wav 24-bit (in 4 bytes), 1 channel"
    ),
    "9 GSM 6.10": (
        coded("GSM610"), f"{NOT_INTEGERS}: {{path}}; {ROUND}", ("--bits", "16"), GSM,
        "wav GSM 6.10, 1 channel",
    ),
    "9 ADPCM": (
        coded("IMA_ADPCM"), f"{NOT_INTEGERS}: {{path}}; {ROUND}", ("--bits", "16"), decoded(coded("IMA_ADPCM")),
        "wav 4-bit IMA ADPCM, 1 channel",
    ),
    "9 MP3": (
        MP3, f"{NOT_INTEGERS}: {{path}}; {ROUND}", ("--bits", "16"), decoded(MP3), "wav MP3, 1 channel"
    ),
    "6 float beyond full scale": (
        floats(0, -0.5, 1.5), f"{{path}}: {BEYOND}", ("--bits", "16", "--clip", "true"), [0, -16384, 32767],
        "wav 32-bit float, 1 channel",
    ),
    "7 float": (
        floats(0, -0.5, 0.25), f"{NOT_INTEGERS}: {{path}}; {ROUND}", ("--bits", "16"), [0, -16384, 8192],
        "wav 32-bit float, 1 channel",
    ),
    "8 24 bits": (
        wave(WIDE, bits=24), f"{NOT_INTEGERS}: {{path}}; {ROUND}", ("--bits", "16"), SAMPLES, "wav 24-bit, 1 channel"
    ),
    "9 mu-law": (
        wave(bytes([0xFF, 0x80, 0x00]), tag=7, bits=8), f"{NOT_INTEGERS}: {{path}}; {ROUND}", ("--bits", "16"),
        [0, 32124, -32124], "wav 8-bit mu-law, 1 channel",
    ),
    "10 stereo": (
        wave(STEREO, channels=2),
        f"1 file with several channels: {{path}}; {ONE_CHANNEL}, {AWAY}",
        ("--channel", "1"), SAMPLES[2400:], "wav 16-bit, 2 channels",
    ),
    "11 8 kHz": (
        wave(rate_hz=8000),
        f"1 file of 8000 Hz, where 5 of 6 have 16000: {{path}}; resample all with --rate_hz 16000 (or another), {AWAY}",
        ("--rate_hz", "16000"), None, "16-bit, 1 channel, 8000 Hz",
    ),
}  # fmt: skip


@pytest.mark.parametrize("contents, message, options, samples, kind", CHOICES.values(), ids=CHOICES)
def test_only_what_is_asked_for_is_done(folder, tmp_path, contents, message, options, samples, kind):
    path = tmp_path / "in/x.wav"
    refused = folder(contents, *(options[:2] if "--clip" in options else ()))
    message = message.format_map(names(path))
    assert (refused.returncode, refused.stderr) == (1, f"error: {message}\n")
    assert not (tmp_path / "out/train").exists()
    allowed = folder(contents, *options)
    assert allowed.returncode == 0, allowed.stderr
    assert f"1 converted to 16-bit mono in {tmp_path}/out/audio:\n  1 {kind}\n" in allowed.stdout
    (wav,) = (data.wav["x"] for data in map(load_data_dir, sorted((tmp_path / "out").glob("t*"))) if "x" in data.wav)
    if samples is not None:
        # libmpg123's own values depend on how much is asked for at a time, by less than a thousandth of a step
        assert np.abs(read_audio(wav) - samples).max() <= ("MP3" in kind)
    assert len(read_audio(wav)) == (9600 if samples is None else len(samples))


def test_6_clipped_samples_are_counted(folder, tmp_path):
    allowed = folder(floats(0, 1.5, -1.5), "--bits", "16", "--clip", "true")
    kind = "recordings have samples beyond full scale, which were clipped"
    assert allowed.stderr == f"warning: 1 {kind}: {tmp_path}/in/x.wav (2)\n"
    assert dump_of(tmp_path / "out/test").info["preparation"] == {
        "converted": {"wav 32-bit float, 1 channel": 1}, "tolerated": {kind: 1}
    }  # fmt: skip


def dump_of(data: Path):
    """The dump of a set."""
    assert programs.call(dump_program.main, "--data", data, "--out", data / "dump").returncode == 0
    return open_dump(data / "dump")


def test_15_more_than_a_file_holds_is_refused_before_it_is_read(folder, tmp_path):
    frames, path = (1 << 31) + 1, tmp_path / "in/x.rf64"
    head = struct.pack(
        "<4sI4s4sIQQQI", b"RF64", 0xFFFFFFFF, b"WAVE", b"ds64", 28, 2 * frames + 72, 2 * frames, frames, 0
    )
    head += b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16)
    with open(path, "wb") as file:
        file.write(head + b"data" + struct.pack("<I", 0xFFFFFFFF))
        file.truncate(len(head) + 8 + 2 * frames)
    refused = folder(wave())
    message = (
        f"{path}: more than 2147483629 frames at 16000 Hz, which a RIFF WAVE file holds; cut it into several files"
    )
    assert (refused.returncode, refused.stderr) == (1, f"error: {message}\n")


# --- --max_bad --------------------------------------------------------------------------------------------------------


def test_so_many_bad_files_as_allowed_are_left_out_listed_and_counted(folder, tmp_path):
    out, bad = tmp_path / "out", tmp_path / "in/x.wav"
    text = (
        "cannot be read as audio (Format not recognised); it starts with b'text of no sound'; copy it again from its "
        "source, move it away, or, if other programs read it, "
    )
    text += FFMPEG.format_map(names(bad))
    (tmp_path / "in/y.wav").write_bytes(b"")
    too_many = folder(b"text of no sound", "--max_bad", "1")
    counts = "(2 errors in total; nothing was written) (2 bad audio files, of which --max_bad allows 1)"
    assert (too_many.returncode, too_many.stderr) == (
        1, f"error: {bad}: {text}\nerror: {bad.parent}/y.wav: empty file; {AGAIN} {counts}\n"
    )  # fmt: skip
    assert not (out / "rejected.tsv").exists()

    left_out = folder(b"text of no sound", "--max_bad", "2")
    assert left_out.returncode == 0 and left_out.stdout.startswith("5 audio files of 16000 Hz: 5 used where they are")
    assert left_out.stderr == (
        "warning: 2 audio files cannot be used and were left out (at most 2 may be, by --max_bad): "
        f"{bad}, {bad.parent}/y.wav\n"
    )
    assert (out / "rejected.tsv").read_text() == (
        f"{bad}\t{bad}: {text}\n{bad.parent}/y.wav\t{bad.parent}/y.wav: empty file; {AGAIN}\n"
    )
    assert dump_of(out / "test").info["preparation"] == {"rejected": 2}
    assert folder(None, "--max_bad", "2").stdout == f"{out}: complete\n"
    assert folder(None).returncode == 1  # what was allowed once is not allowed for ever
    (bad.parent / "y.wav").unlink()
    assert folder(wave(), "--max_bad", "2").returncode == 0 and not (out / "rejected.tsv").exists()
    assert dump_of(out / "test").info["preparation"] == {}


def test_max_bad_is_a_number(folder):
    wrong = folder(wave(), "--max_bad", "some")
    assert wrong.returncode == 2 and "argument --max_bad: 'some': expected an integer" in wrong.stderr
