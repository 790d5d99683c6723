"""Reading audio: exact samples from what is right, one line naming the reason for what is wrong."""

import hashlib
import os
import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechlvm.data.audio import audio_info, check_format, read_audio, write_wav
from speechlvm.utils.errors import UserError

SAMPLES = np.random.default_rng(0).integers(-32768, 32768, 4800).astype(np.int16)


def sphere(samples=SAMPLES, order="01", size=1024, **fields) -> bytes:
    """A SPHERE file; a field of None is left out."""
    values = {
        "sample_count": f"-i {len(samples)}", "sample_rate": "-i 16000", "channel_count": "-i 1",
        "sample_n_bytes": "-i 2", "sample_byte_format": f"-s2 {order}", "sample_coding": "-s3 pcm", **fields,
    }  # fmt: skip
    lines = [f"{name} {value}" for name, value in values.items() if value is not None]
    head = "\n".join(["NIST_1A", f"{size:7d}", *lines, "end_head", ""]).encode().ljust(1024)
    return head + samples.astype(">i2" if order == "10" else "<i2").tobytes()


def wave(data: bytes, tag=1, channels=1, rate=16000, bits=16, size=None, extra=b"") -> bytes:
    """A RIFF WAVE file with any header."""
    width = channels * ((bits + 7) // 8)
    layout = struct.pack("<HHIIHH", tag, channels, rate, rate * width, width, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + layout + extra
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body) & 0xFFFFFFFF) + body


PCM = SAMPLES.astype("<i2").tobytes()


def put(directory: Path, content: bytes, name="a.wav") -> Path:
    path = directory / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        sphere(),
        sphere(order="10"),
        sphere(sample_coding=None),
        sphere(sample_min=f"-i {SAMPLES.min()}", sample_max=f"-i {SAMPLES.max()}"),
        sphere(sample_min="-i -5", sample_max="-i 5"),  # stale extrema prove nothing
        wave(PCM),
        wave(PCM, extra=b"LIST" + struct.pack("<I", 3) + b"abc\0"),
        wave(PCM) + b"LIST" + struct.pack("<I", 4) + b"tail",
    ],
)
@pytest.mark.parametrize("name", ["a.WAV", "a.flac", "a b.txt"])
def test_exact_samples_whatever_the_name(tmp_path, content, name):
    samples = read_audio(put(tmp_path, content, name))
    assert samples.dtype == np.int16 and np.array_equal(samples, SAMPLES)
    assert samples.dtype.isnative


@pytest.mark.parametrize("container,subtype", [("WAV", "PCM_16"), ("WAVEX", "PCM_16"), ("FLAC", "PCM_16")])
def test_files_of_libsndfile(tmp_path, container, subtype):
    path = tmp_path / "a"
    soundfile.write(path, SAMPLES, 16000, format=container, subtype=subtype)
    assert np.array_equal(read_audio(path), SAMPLES)
    info = audio_info(path)
    assert (info.num_samples, info.bits, info.channels, info.rate_hz) == (4800, 16, 1, 16000)


@pytest.mark.parametrize("samples", [np.zeros(1, np.int16), np.zeros(9999, np.int16), np.full(7, -32768, np.int16)])
def test_short_and_constant_signals_round_trip(tmp_path, samples):
    write_wav(tmp_path / "a.wav", samples, 16000)
    assert np.array_equal(read_audio(tmp_path / "a.wav"), samples)
    assert np.array_equal(soundfile.read(tmp_path / "a.wav", dtype="int16")[0], samples)
    assert os.listdir(tmp_path) == ["a.wav"]


def test_write_wav_keeps_the_old_file_when_it_fails(tmp_path):
    write_wav(tmp_path / "a.wav", SAMPLES, 16000)
    program = (
        "import resource, sys, numpy as np\n"
        "from speechlvm.data.audio import write_wav\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "write_wav(sys.argv[1], np.zeros(9000, np.int16), 16000)\n"
    )
    result = subprocess.run([sys.executable, "-c", program, tmp_path / "a.wav"], capture_output=True, text=True)
    assert result.returncode != 0 and "UserError" in result.stderr
    assert np.array_equal(read_audio(tmp_path / "a.wav"), SAMPLES)
    assert os.listdir(tmp_path) == ["a.wav"]


def floats(values, bits=32) -> bytes:
    return wave(np.asarray(values, f"<f{bits // 8}").tobytes(), tag=3, bits=bits)


NAN_AT_3 = [0, 0.5, 0, np.nan, 0]

BAD = {
    "wav cut in mid-data": (wave(PCM)[:-3000], "header says 4800 samples, found 3300; copy the file again"),
    "wav without data": (wave(b""), "no samples"),
    "wav cut in its header": (wave(PCM)[:30], "RIFF WAVE without a fmt chunk|RIFF WAVE with a fmt chunk of 10 bytes"),
    "wav without a data chunk": (wave(PCM)[:36], "RIFF WAVE without a data chunk"),
    "wav cut by more than a header": (wave(PCM, size=len(PCM) + 46), "header says 4823 samples, found 4800"),
    "two data chunks": (wave(PCM) + b"data" + struct.pack("<I", 4) + b"more", "a second data chunk, of 4 bytes, which"),
    "wav of an unknown coding": (wave(PCM, tag=0x161), "coding 0x0161, which is not decoded here; .*ffmpeg -i "),
    "empty": (b"", "empty file"),
    "lying wav, streamed": (wave(PCM, size=0xFFFFFFFF), "header says 2147483647 samples, found 4800"),
    "lying wav": (wave(PCM, size=0x7FFFFFFE), "header says 1073741823 samples, found 4800"),
    "lying sphere": (sphere(sample_count="-i 2147483647"), "header says 2147483647 samples, found 4800"),
    "sphere cut": (sphere()[:-2], "header says 4800 samples, found 4799"),
    "sphere too long": (sphere() + b"xx", "2 bytes more than the 4800 samples that its header says"),
    "sphere after a text transfer": (sphere().replace(b"\n", b"\r\n") + bytes(9), "[0-9]+ bytes more than"),
    "nan": (floats(NAN_AT_3), "sample 3 is nan"),
    "inf in doubles": (floats([0, -np.inf], 64), "sample 1 is -inf"),
    "float that clips": (floats([0, 1.5]), r"32-bit float samples that would clip \(peak 1.500\)"),
    "float": (floats([0, 0.5]), "32-bit float samples; expected 16-bit PCM.*sox .* -b 16 "),
    "24 bits": (wave(PCM[:9600], bits=24), "24-bit samples; expected 16-bit PCM"),
    "32 bits": (wave(PCM, bits=32), "32-bit samples; expected 16-bit PCM"),
    "8 bits": (wave(PCM, bits=8), "8-bit samples; expected 16-bit PCM"),
    "mu-law": (wave(PCM, tag=7, bits=8), "8-bit mu-law samples; expected 16-bit PCM"),
    "A-law": (wave(PCM, tag=6, bits=8), "8-bit A-law samples"),
    "sphere mu-law": (sphere(SAMPLES[:2400].repeat(2), sample_n_bytes="-i 1", sample_count="-i 9600",
                             sample_coding="-s4 ulaw"), "8-bit ulaw samples"),
    "stereo": (wave(PCM, channels=2), "2 channels; expected 1.*remix 1"),
    "sphere stereo": (sphere(sample_count="-i 2400", channel_count="-i 2"), "2 channels"),
    "8 kHz": (wave(PCM, rate=8000), "sampling rate 8000 Hz; expected 16000 Hz"),
    "sphere 44.1 kHz": (sphere(sample_rate="-i 44100"), "sampling rate 44100 Hz; expected 16000 Hz"),
    "text": (b"Hello world, this is text", "not audio that is read here: starts with b'Hello world, thi'"),
    "mp3": (b"ID3\x04\0\0\0\0\0\0 and so on", "not audio that is read here: starts with b'ID3"),
    "html": (b"<!DOCTYPE html><html>404", "not audio that is read here: starts with b'<!DOCTYPE html><'"),
    "RF64 cut in its header": (b"RF64\xff\xff\xff\xffWAVEds64", "RIFF WAVE without a fmt chunk"),
    "shorten": (sphere(sample_coding="-s26 pcm,embedded-shorten-v2.00"), "SPHERE with compression.*sph2pipe -f wav "),
    "no byte order": (sphere(sample_byte_format=None), "sample_byte_format is missing; expected 01"),
    "odd byte order": (sphere(sample_byte_format="-s2 11"), "sample_byte_format is '11'"),
    "no count": (sphere(sample_count=None), "SPHERE header without sample_count"),
    "count no number": (sphere(sample_count="-s3 abc"), "sample_count is 'abc'; expected a number"),
    "negative count": (sphere(sample_count="-i -1"), "sample_count is -1"),
    "zero channels": (sphere(channel_count="-i 0"), "channel_count is 0"),
    "sphere no samples": (sphere(SAMPLES[:0]), "no samples"),
    "short sphere header": (sphere()[:100], "SPHERE header of 1024 bytes in a file of 100 bytes"),
    "sphere size no number": (b"NIST_1A\n   abcd\n" + bytes(2000), "SPHERE header size"),
    "sphere size negative": (sphere(size=-5), "SPHERE header of -5 bytes"),
    "sphere without an end": (sphere().replace(b"end_head", b"end_tail"), "has no end_head"),
}  # fmt: skip


ID3V2, ID3V1 = b"ID3\x04\0\0\0\0\0\x03abc", b"TAG" + b"Take one".ljust(125, b"\0")
NOTE = b"LIST" + struct.pack("<I", 5) + b"INFO!"  # of odd size, without its pad byte


def relaid(place: int, value: int) -> bytes:
    """With another number of 16 bits at a place of the fmt chunk."""
    content = wave(PCM)
    return content[: 20 + place] + struct.pack("<H", value) + content[22 + place :]


def streamed(content: bytes) -> bytes:
    """FLAC without the number of samples."""
    head = int.from_bytes(content[18:26], "big") >> 36 << 36
    return content[:18] + head.to_bytes(8, "big") + content[26:]


ODD = {
    "one byte more": (wave(PCM) + b"x", "1 byte behind the data"),
    "zeros up to a sector": (wave(PCM) + bytes(212), "212 bytes behind the data"),
    "zeros without end": (wave(PCM) + bytes(70001), "70001 bytes behind the data"),
    "an ID3v1 tag": (wave(PCM) + ID3V1, "128 bytes behind the data"),
    "a note that is cut": (wave(PCM) + b"LIST\xff\0\0\0" + bytes(range(99)), "107 bytes behind the data"),
    "half a sample": (wave(PCM + b"x"), "1 byte of a sample that is not whole"),
    "size rounded up": (wave(PCM, size=len(PCM) + 2), "2 bytes less than its header says"),
    "size with the header": (wave(PCM, size=len(PCM) + 44), "44 bytes less than its header says"),
    "size with a long header": (
        wave(PCM, size=len(PCM) + 144, extra=b"JUNK" + struct.pack("<I", 92) + bytes(92)),
        "144 bytes less than its header says",
    ),
    "no pad byte": (wave(PCM, extra=NOTE), "a chunk without its pad byte"),
    "no pad byte before the layout": (wave(PCM)[:12] + NOTE + wave(PCM)[12:], "a chunk without its pad byte"),
    "a size too small": (wave(PCM, extra=NOTE.replace(b"\5", b"\1") + b"!"), "a chunk with a wrong size"),
    "a size too large": (wave(PCM, extra=NOTE.replace(b"\5", b"\x0d") + b"!"), "a chunk with a wrong size"),
    "block align": (relaid(12, 1), "block align 1"),
    "byte rate": (relaid(8, 1), ""),
    "RIFF's own size": (b"RIFF\0\0\0\0" + wave(PCM)[8:], ""),
    "an ID3v2 tag before": (ID3V2 + wave(PCM), ""),
    "sphere with zeros": (sphere() + bytes(3), "3 bytes behind the data"),
}  # fmt: skip


@pytest.mark.parametrize("content,oddity", ODD.values(), ids=ODD)
def test_what_others_read_is_read_and_told(tmp_path, content, oddity):
    path = put(tmp_path, content)
    assert np.array_equal(read_audio(path), SAMPLES)
    assert audio_info(path).oddities == ((oddity,) if oddity else ())


@pytest.mark.parametrize("tags", [(b"", b""), (ID3V2, ID3V1)], ids=["plain", "with tags"])
def test_flac_that_was_streamed(tmp_path, tags):
    path = put(tmp_path, tags[0] + streamed(flac(tmp_path)) + tags[1])
    assert np.array_equal(read_audio(path, allow_streamed=True), SAMPLES)
    with pytest.raises(UserError, match="header says 0 samples, as where a program has written into a pipe"):
        read_audio(path)
    path.write_bytes(tags[0] + flac(tmp_path) + tags[1])
    assert np.array_equal(read_audio(path), SAMPLES)


@pytest.mark.parametrize("content,message", BAD.values(), ids=BAD)
def test_bad_files_are_refused_with_the_reason(tmp_path, content, message):
    path = put(tmp_path, content)
    with pytest.raises(UserError, match=message) as error:
        read_audio(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    assert error.value.exit_status == 1


def test_wrong_byte_order_is_told_by_the_extrema(tmp_path):
    extrema = {"sample_min": f"-i {SAMPLES.min()}", "sample_max": f"-i {SAMPLES.max()}"}
    wrong = sphere(SAMPLES.byteswap().view(np.int16), **extrema)
    with pytest.raises(UserError, match="other byte order than sample_byte_format says"):
        read_audio(put(tmp_path, wrong))


def test_shorten_prints_a_command_that_the_shell_reads_as_one_file(tmp_path):
    path = put(tmp_path, sphere(sample_coding="-s26 pcm,embedded-shorten-v2.00"), "a b.WAV")
    source, target = (shlex.quote(str(word)) for word in (path, tmp_path / "a b.pcm.wav"))
    with pytest.raises(UserError, match=re.escape(f"sph2pipe -f wav {source} {target}")):
        audio_info(path)


def flac(tmp_path) -> bytes:
    soundfile.write(tmp_path / "good.flac", SAMPLES, 16000)
    return (tmp_path / "good.flac").read_bytes()


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_cut_flac(tmp_path, keep):
    content = flac(tmp_path)
    with pytest.raises(UserError, match="header says 4800 samples, found|damaged FLAC"):
        read_audio(put(tmp_path, content[: int(keep * len(content))]))


def test_flac_with_a_wrong_md5(tmp_path):
    content = bytearray(flac(tmp_path))
    assert bytes(content[26:42]) == hashlib.md5(PCM).digest()
    content[30] ^= 1
    with pytest.raises(UserError, match="differ from the MD5 sum in the FLAC header"):
        read_audio(put(tmp_path, bytes(content)))


def test_flac_cut_in_its_header_or_lying(tmp_path):
    content = bytearray(flac(tmp_path))
    with pytest.raises(UserError, match="FLAC without a STREAMINFO block"):
        read_audio(put(tmp_path, bytes(content[:20])))
    content[21:26] = b"\xff" * 5  # total samples: 2^36 - 1
    with pytest.raises(UserError, match="header says 68719476735 samples|damaged FLAC"):
        read_audio(put(tmp_path, bytes(content)))


def test_missing_and_dangling(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_audio(tmp_path / "none.wav")
    (tmp_path / "link.wav").symlink_to(tmp_path / "none.wav")
    with pytest.raises(UserError, match="dangling symbolic link"):
        read_audio(tmp_path / "link.wav")
    with pytest.raises(UserError, match="no such file|not a regular readable file"):
        read_audio("a\0b")


@pytest.mark.parametrize("kind", ["directory", "fifo", "/dev/zero", "/dev/null"])
def test_what_is_no_regular_file_never_blocks(tmp_path, kind):
    path = Path(kind) if kind.startswith("/") else tmp_path / kind
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(UserError, match="not a regular readable file"):
        read_audio(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(tmp_path):
    path = put(tmp_path, wave(PCM))
    path.chmod(0)
    with pytest.raises(UserError, match="not a regular readable file"):
        read_audio(path)


def test_nothing_is_allocated_from_a_header(tmp_path):
    path = put(tmp_path, sphere(sample_count="-i 2147483647"))
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))\n"
        "from speechlvm.data.audio import read_audio\n"
        "try: read_audio(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, timeout=20, env=environment
    )
    assert result.stdout.strip() == "UserError", result.stderr


def test_other_rates_are_a_choice(tmp_path):
    path = put(tmp_path, wave(PCM, rate=8000))
    assert np.array_equal(read_audio(path, rate_hz=8000), SAMPLES)
    check_format(audio_info(path), 8000)


def test_sample_corpus_agrees_with_libsndfile(timit_sample):
    paths = sorted(timit_sample.glob("TEST/*/*/*.WAV"))
    assert paths
    for path in paths:
        assert np.array_equal(read_audio(path), soundfile.read(path, dtype="int16")[0])
