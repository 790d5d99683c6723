"""Conversion to 16-bit mono: what is exact stays exact, what is resampled is right, what is wrong is named."""

import hashlib
import io
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from imitations.audio import SAMPLES, chunk, replaced, streamed_flac, wave
from imitations.audio import save as saved

from speechlvm.data.audio import UnknownLength, audio_info, describe, read_audio, write_wav
from speechlvm.data.corpora import convert
from speechlvm.data.corpora.convert import convert_audio
from speechlvm.data.log import Log
from speechlvm.utils.errors import UserError

RATE_HZ = 16000


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(-32768, 32768, 30000).astype(np.int16)


def save(path, values, rate_hz=RATE_HZ, **options):
    """In pieces: libsndfile's Vorbis encoder overflows its stack on long blocks."""
    values = np.asarray(values)
    with soundfile.SoundFile(path, "w", rate_hz, 1 if values.ndim == 1 else values.shape[1], **options) as file:
        for start in range(0, len(values), 4096):
            file.write(values[start : start + 4096])
    return path


def convert_to(path, target, rate_hz=RATE_HZ, channel="mix", **allowed):
    log = Log()
    converted = convert_audio(path, target, rate_hz, channel, log, **allowed)
    assert converted.rate_hz == audio_info(target).rate_hz and converted.frames == audio_info(target).num_samples
    samples = read_audio(target, converted.rate_hz)
    assert converted.digest == hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()
    return samples, log.tolerated


def sine(hz, rate_hz, seconds=1.0, level=0.5):
    return level * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz)


LOSSLESS = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "24-bit wav": {"format": "WAV", "subtype": "PCM_24"},
    "32-bit wav": {"format": "WAV", "subtype": "PCM_32"},
    "float wav": {"format": "WAV", "subtype": "FLOAT"},
    "double wav": {"format": "WAV", "subtype": "DOUBLE"},
    "extensible wav": {"format": "WAVEX", "subtype": "PCM_16"},
    "RF64": {"format": "RF64", "subtype": "PCM_16"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "24-bit flac": {"format": "FLAC", "subtype": "PCM_24"},
    "aiff": {"format": "AIFF", "subtype": "PCM_16"},
    "sphere": {"format": "NIST", "subtype": "PCM_16"},
    "au": {"format": "AU", "subtype": "PCM_16"},
    "caf": {"format": "CAF", "subtype": "PCM_16"},
}


@pytest.mark.parametrize("options", LOSSLESS.values(), ids=LOSSLESS)
def test_sixteen_bits_at_the_right_rate_pass_through(tmp_path, noise, options):
    values = noise / 32768 if options["subtype"] in ("FLOAT", "DOUBLE") else noise
    samples, tolerated = convert_to(save(tmp_path / "a.x", values, **options), tmp_path / "b.wav")
    np.testing.assert_array_equal(samples, noise)
    assert tolerated == {}
    write_wav(tmp_path / "c.wav", noise, RATE_HZ)
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "c.wav").read_bytes()


def test_rounding_is_to_the_nearest_and_half_to_even(tmp_path):
    values = np.array([0, 127, 128, 129, 383, 384, 385, -128, -129, 255], dtype=np.int32)  # 24-bit: 256 to a step
    path = save(tmp_path / "a.wav", values << 8, subtype="PCM_24")
    samples, _ = convert_to(path, tmp_path / "b.wav")
    assert samples.tolist() == [0, 0, 0, 1, 1, 2, 2, 0, -1, 1]


def test_values_beyond_full_scale_are_clipped_and_counted(tmp_path):
    path = save(tmp_path / "a.wav", np.array([0.0, 1.5, -1.0, -1.25, 32767 / 32768, 1.0]), subtype="FLOAT")
    with pytest.raises(UserError, match=r"a\.wav: 2 samples beyond full scale \(peak 1\.500\); .* with --clip true"):
        convert_to(path, tmp_path / "b.wav")
    samples, tolerated = convert_to(path, tmp_path / "b.wav", clip=True)
    assert samples.tolist() == [0, 32767, -32768, -32768, 32767, 32767]
    assert tolerated == {"recordings have samples beyond full scale, which were clipped": [f"{path} (3)"]}
    # counted again when nothing is left to do
    assert convert_to(path, tmp_path / "b.wav", clip=True)[1] == tolerated
    with pytest.raises(UserError, match="2 samples beyond full scale"):
        convert_to(path, tmp_path / "b.wav")


@pytest.mark.parametrize("old_rate_hz", [8000, 22050, 44100, 48000])
def test_a_sine_keeps_its_frequency_and_level(tmp_path, old_rate_hz):
    path = save(tmp_path / "a.wav", sine(1000, old_rate_hz), old_rate_hz, subtype="PCM_24")
    samples, tolerated = convert_to(path, tmp_path / "b.wav")
    assert len(samples) == RATE_HZ
    inner = slice(1000, -1000)
    expected = 32768 * sine(1000, RATE_HZ)
    assert np.abs(samples - expected)[inner].max() < 0.6
    below = "recordings are sampled below 16000 Hz and have nothing above half their own rate"
    assert tolerated == ({below: [f"{path} ({old_rate_hz} Hz)"]} if old_rate_hz < RATE_HZ else {})


def test_what_the_new_rate_cannot_hold_is_removed(tmp_path):
    path = save(tmp_path / "a.wav", sine(10000, 44100), 44100, subtype="PCM_24")
    samples, _ = convert_to(path, tmp_path / "b.wav")
    assert np.abs(samples[1000:-1000]).max() <= 1


def test_overshoot_of_the_resampler_is_clipped_and_counted(tmp_path):
    square = np.where(np.arange(44100) % 200 < 100, 32767, -32768).astype(np.int16)
    samples, tolerated = convert_to(save(tmp_path / "a.wav", square, 44100), tmp_path / "b.wav")
    assert samples.max() == 32767 and samples.min() == -32768 and len(tolerated) == 1


@pytest.mark.parametrize("rate_hz", [16000, 44100])
def test_the_size_of_blocks_changes_nothing(tmp_path, noise, monkeypatch, rate_hz):
    path = save(tmp_path / "a.flac", np.stack([noise, noise[::-1]], axis=1), rate_hz)
    whole, _ = convert_to(path, tmp_path / "b.wav")
    monkeypatch.setattr(convert, "BLOCK_FRAMES", 777)
    np.testing.assert_array_equal(convert_to(path, tmp_path / "c.wav")[0], whole)


def test_channels(tmp_path):
    left, right = np.array([100, -7, 3], np.int16), np.array([200, 8, 4], np.int16)
    path = save(tmp_path / "a.wav", np.stack([left, right], axis=1))
    assert convert_to(path, tmp_path / "0.wav", channel=0)[0].tolist() == left.tolist()
    assert convert_to(path, tmp_path / "1.wav", channel=1)[0].tolist() == right.tolist()
    assert convert_to(path, tmp_path / "mix.wav")[0].tolist() == [150, 0, 4]  # half to even
    with pytest.raises(UserError, match=r"a\.wav: no channel 2; it has 2; give 0 to 1, or mix"):
        convert_to(path, tmp_path / "2.wav", channel=2)


def test_the_rate_can_be_kept(tmp_path, noise):
    samples, _ = convert_to(save(tmp_path / "a.flac", noise, 22050), tmp_path / "b.wav", rate_hz=None)
    np.testing.assert_array_equal(samples, noise)


@pytest.mark.parametrize("options", [{"format": "MP3"}, {"format": "OGG", "subtype": "VORBIS"}], ids=["mp3", "ogg"])
def test_lossy_containers(tmp_path, options):
    path = save(tmp_path / "a", sine(1000, 44100, 2.0), 44100, **options)
    samples, _ = convert_to(path, tmp_path / "b.wav")
    assert len(samples) == 2 * RATE_HZ
    spectrum = np.abs(np.fft.rfft(samples[8000:24000]))  # one bin to the Hz
    assert spectrum.argmax() == 1000
    assert samples[8000:24000].std() == pytest.approx(32768 * 0.5 / np.sqrt(2), rel=0.02)


def test_it_is_done_once(tmp_path, noise, monkeypatch):
    path, target = save(tmp_path / "a.flac", noise), tmp_path / "b.wav"
    convert_to(path, target)
    before = target.stat().st_ino
    convert_to(path, target)
    assert target.stat().st_ino == before
    for change in (
        lambda: save(path, noise[:20000]),
        lambda: target.write_bytes(target.read_bytes()[:-2]),
        lambda: (tmp_path / "b.wav.json").write_text("{"),
        lambda: (tmp_path / "b.wav.json").write_text("{}"),
    ):
        change()
        convert_to(path, target)
        assert target.stat().st_ino != before and len(read_audio(target)) == 20000
        before = target.stat().st_ino
    convert_to(path, target, rate_hz=8000)
    assert audio_info(target).num_samples == 10000


def cut(path, share=0.6):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)
    return path


def other_sum(path):
    content = bytearray(path.read_bytes())
    content[30] ^= 0x55  # within the MD5 sum
    path.write_bytes(content)


BAD = {
    "cut wav": (lambda d, x: cut(save(d / "a", x, format="WAV")), "header says 30000 samples, found 179"),
    "cut RF64": (lambda d, x: cut(save(d / "a", x, format="RF64")), "header says 30000 samples, found 179"),
    "cut W64": (lambda d, x: cut(save(d / "a", x, format="W64")), "header says [0-9]+ bytes, found"),
    "cut au": (lambda d, x: cut(save(d / "a", x, format="AU")), "header says [0-9]+ bytes, found"),
    "cut aiff": (lambda d, x: cut(save(d / "a", x, format="AIFF")), "header says [0-9]+ bytes, found"),
    "cut flac": (lambda d, x: cut(save(d / "a", x, format="FLAC")), "lost sync|header says 30000 samples"),
    "cut ogg": (lambda d, x: cut(save(d / "a", sine(100, 16000, 3), format="OGG")), "Ogg without its last page"),
    "cut mp3": (lambda d, x: cut(save(d / "a", x, format="MP3")), "header says 30000 samples, found 1"),
    "damaged flac": (lambda d, x: damage(save(d / "a", x, format="FLAC")), "lost sync|MD5|cannot be read as audio"),
    "other sum": (lambda d, x: other_sum(save(d / "a", x, format="FLAC")), "decoded samples differ from the MD5 sum"),
    "m4a": (lambda d, x: (d / "a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(99)), "MPEG-4 audio .* not supported"),
    "wma": (lambda d, x: (d / "a").write_bytes(b"0&\xb2u\x8ef\xcf\x11" + bytes(99)), "Windows Media audio"),
    "text": (lambda d, x: (d / "a").write_text("<html>no such page</html>"), "starts with b'<html>no such pa'"),
    "NaN": (lambda d, x: save(d / "a", np.r_[np.zeros(70000), np.nan], format="WAV", subtype="FLOAT"),
            "sample 70000 is not a finite number"),
}  # fmt: skip


STREAMED = {
    "wav": wave(size=0xFFFFFFFF),
    "wav of 0": wave(size=0),
    "flac": streamed_flac(saved(format="FLAC")),
    "RF64": replaced(saved(format="RF64"), 20, b"\xff" * 16),
    "au": replaced(saved(format="AU"), 8, b"\xff" * 4),
    "au of 0": replaced(saved(format="AU"), 8, bytes(4)),
    "aiff": replaced(saved(format="AIFF"), 4, bytes(4)),
}


@pytest.mark.parametrize("content", STREAMED.values(), ids=STREAMED)
def test_streamed_files_are_complete_only_if_that_is_allowed(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UnknownLength, match="header says .*, as after writing to a pipe"):
        convert_to(tmp_path / "a", tmp_path / "b.wav")
    assert np.array_equal(convert_to(tmp_path / "a", tmp_path / "b.wav", allow_streamed=True)[0], SAMPLES)


WIDE = b"".join((256 * int(value)).to_bytes(3, "little", signed=True) for value in SAMPLES)
MP3 = saved(subtype="MPEG_LAYER_III", format="MP3")
MP3_LAYOUT = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE_HZ, 8000, 1, 0, 12, 1, 2, 417, 1, 0)
MP3 = chunk(b"RIFF", b"WAVE" + chunk(b"fmt ", MP3_LAYOUT) + chunk(b"data", MP3))


def in_four_bytes(shift: int) -> bytes:
    """24-bit samples."""
    return replaced(wave((SAMPLES.astype("<i4") << shift).tobytes(), bits=32), 34, struct.pack("<H", 24))


def decoded(content: bytes) -> np.ndarray:
    """As libsndfile reads it."""
    return np.rint(soundfile.read(io.BytesIO(content))[0] * 32768)


# contents, samples, and the kind of samples in words
CODED = {
    "24 bits without a pad byte": (
        wave(WIDE[:-3], bits=24) + chunk(b"LIST", bytes(range(50))), SAMPLES[:-1], "24-bit"
    ),
    "24 bits in the low of 4 bytes": (in_four_bytes(8), SAMPLES, "24-bit (in 4 bytes)"),
    "24 bits in the high of 4 bytes": (in_four_bytes(16), SAMPLES, "24-bit (in 4 bytes)"),
    # libsndfile decodes a block that is not there after an odd number
    "GSM 6.10": (saved(subtype="GSM610"), decoded(saved(subtype="GSM610"))[: len(SAMPLES)], "GSM 6.10"),
    "ADPCM": (saved(subtype="IMA_ADPCM"), decoded(saved(subtype="IMA_ADPCM")), "4-bit IMA ADPCM"),
    "MP3": (MP3, decoded(MP3), "MP3"),
    "mu-law": (wave(bytes([0xFF, 0x80, 0x00]), tag=7, bits=8), np.array([0, 32124, -32124]), "8-bit mu-law"),
}  # fmt: skip


@pytest.mark.parametrize("content, expected, kind", CODED.values(), ids=CODED)
def test_other_codings_of_wav(tmp_path, content, expected, kind):
    (tmp_path / "a").write_bytes(content)
    assert describe(audio_info(tmp_path / "a")) == kind
    samples, _ = convert_to(tmp_path / "a", tmp_path / "b.wav")
    # libmpg123's own values depend on how much is asked for at a time, by less than a thousandth of a step
    assert len(samples) == len(expected) and np.abs(samples - expected).max() <= (kind == "MP3")


def test_a_size_with_the_header_counted_in_is_told(tmp_path, noise):
    path = save(tmp_path / "a.aiff", noise)
    content = path.read_bytes()
    path.write_bytes(content[:4] + len(content).to_bytes(4, "big") + content[8:])
    samples, tolerated = convert_to(path, tmp_path / "b.wav")
    assert np.array_equal(samples, noise)
    assert list(tolerated.values()) == [[f"{path} (8 bytes less than its header says)"]]


def test_an_ogg_file_that_was_never_closed_is_one_of_unknown_length(tmp_path, noise):
    path = save(tmp_path / "a.ogg", noise / 2**17, format="OGG")
    whole, _ = convert_to(path, tmp_path / "whole.wav")
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"OggS")])
    with pytest.raises(
        UserError, match=r"a\.ogg: no page is marked as the last one, .*if it is complete, convert it, .*ffmpeg"
    ):
        convert_to(path, tmp_path / "b.wav")
    samples, _ = convert_to(path, tmp_path / "b.wav", allow_streamed=True)
    assert 0 < len(samples) < len(whole) and np.array_equal(samples, whole[: len(samples)])


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_errors_are_named_and_nothing_is_left(tmp_path, noise, make, message):
    make(tmp_path, noise)
    with pytest.raises(UserError, match=message) as error:
        convert_to(tmp_path / "a", tmp_path / "new/b.wav")
    assert str(tmp_path / "a") in str(error.value) and len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "new").exists() or list((tmp_path / "new").iterdir()) == []


def test_an_end_that_an_mp3_file_lacks_is_told(tmp_path):
    path = save(tmp_path / "a", sine(1000, 44100), 44100, format="MP3")
    path.write_bytes(path.read_bytes()[:-100])
    samples, tolerated = convert_to(path, tmp_path / "b.wav", rate_hz=None)
    assert 44100 - 2 * 1152 <= len(samples) < 44100
    assert tolerated == {"MP3 files are up to two blocks shorter than their headers say": [str(path)]}


def test_an_mp3_file_without_a_count_is_as_long_as_it_is(tmp_path):
    path = save(tmp_path / "a", sine(1000, 44100, 2.0), 44100, format="MP3")
    content = path.read_bytes()
    place = content.index(b"Info") if b"Info" in content else content.index(b"Xing")
    path.write_bytes(content[:place] + b"none" + content[place + 4 : -2000])
    samples, tolerated = convert_to(path, tmp_path / "b.wav", rate_hz=None)
    assert 10000 < len(samples) < 2 * 44100 and tolerated == {}


def test_files_for_which_riff_is_too_small(tmp_path, noise, monkeypatch):
    monkeypatch.setattr(convert, "MOST_FRAMES", 29999)
    with pytest.raises(UserError, match="more than 29999 frames at 16000 Hz, the limit of a RIFF WAVE file; split it"):
        convert_to(save(tmp_path / "a.wav", noise), tmp_path / "b.wav")


MEMORY = """
import re, sys
from pathlib import Path
from speechlvm.data.corpora.convert import convert_audio
from speechlvm.data.log import Log
import soundfile, soxr
convert_audio(Path(sys.argv[1]), Path(sys.argv[2]), 16000, "mix", Log())
peak = lambda: int(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
convert_audio(Path(sys.argv[3]), Path(sys.argv[4]), 16000, "mix", Log())
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_recording(tmp_path):
    block = np.random.default_rng(0).integers(-99, 99, (44100 * 10, 2)).astype(np.int16)
    for name, count in (("short", 1), ("long", 20)):
        with soundfile.SoundFile(tmp_path / name, "w", 44100, 2, format="WAV", subtype="PCM_16") as file:
            for _ in range(count):
                file.write(block)
    arguments = [tmp_path / "short", tmp_path / "a.wav", tmp_path / "long", tmp_path / "b.wav"]
    done = subprocess.run([sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True, check=True)
    assert (tmp_path / "long").stat().st_size > 35e6
    assert int(done.stdout) < 8000  # kB
