"""Audio files with any header, right or wrong."""

import io
import struct

import numpy as np
import soundfile

RATE_HZ = 16000
SAMPLES = np.random.default_rng(0).integers(-9000, 9000, 4800).astype(np.int16)
PCM = SAMPLES.astype("<i2").tobytes()

# of messages; {source} and {target}: quoted for a shell
AGAIN = "copy the file again from its source"
FFMPEG = "convert it, for example with: ffmpeg -i {source} -c:a pcm_s16le {target}"


def wave(data=PCM, tag=1, channels=1, rate_hz=RATE_HZ, bits=16, align=None, size=None, extra=b"") -> bytes:
    """RIFF WAVE; `size` in place of the number of bytes of data, `extra` chunks before the data."""
    width = channels * ((bits + 7) // 8) if align is None else align
    layout = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * width, width, bits)
    body = b"WAVE" + chunk(b"fmt ", layout) + extra + chunk(b"data", data, size)
    return chunk(b"RIFF", body)


def chunk(name: bytes, data: bytes, size: int | None = None) -> bytes:
    """A chunk of RIFF, without a pad byte."""
    return name + struct.pack("<I", len(data) if size is None else size) + data


def floats(*values: float, bits=32) -> bytes:
    """RIFF WAVE of floating-point samples."""
    return wave(np.array(values, f"<f{bits // 8}").tobytes(), tag=3, bits=bits)


def sphere(data=PCM, size=1024, **fields: str | None) -> bytes:
    """NIST SPHERE; a field of None is left out."""
    values = {
        "sample_count": f"-i {len(data) // 2}", "sample_rate": "-i 16000", "channel_count": "-i 1",
        "sample_n_bytes": "-i 2", "sample_byte_format": "-s2 01", "sample_coding": "-s3 pcm", **fields,
    }  # fmt: skip
    lines = [f"{name} {value}" for name, value in values.items() if value is not None]
    return "\n".join(["NIST_1A", f"{size:7d}", *lines, "end_head", ""]).encode().ljust(1024) + data


def save(samples=SAMPLES, subtype="PCM_16", format="WAV") -> bytes:
    """As libsndfile writes it."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE_HZ, format=format, subtype=subtype)
    return file.getvalue()


def replaced(content: bytes, place: int, new: bytes) -> bytes:
    """With other bytes from a place on."""
    return content[:place] + new + content[place + len(new) :]


def streamed_flac(content: bytes) -> bytes:
    """FLAC without the number of samples."""
    return replaced(content, 21, bytes([content[21] & 0xF0, 0, 0, 0, 0]))
