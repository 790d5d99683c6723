"""Audio files damaged at random: exact samples, a few fewer with an oddity, or an error that names the file.

Files are read in a process of their own with a gigabyte of address space; one that dies or hangs is a failure.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imitations.audio import SAMPLES, save, sphere

SAMPLES = SAMPLES[:1500]
PCM = SAMPLES.astype("<i2").tobytes()
SECONDS = 10
MOST_BYTES = 48  # that may be missing: a header, which some programs count as data, and what an edit adds
WORKER = """
import json, resource, sys
from pathlib import Path
import numpy, soundfile, soxr
from speechlvm.data.audio import audio_info, read_audio
from speechlvm.data.corpora.convert import convert_audio
from speechlvm.data.log import Log
from speechlvm.utils.errors import UserError

resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

def outcome(path, call):
    try:
        return call(path)
    except UserError as error:
        if len(str(error).splitlines()) == 1 and str(path) in str(error):
            return None
        return f"unnamed: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"

def converted(path):
    target = path.with_name("target.wav")
    convert_audio(path, target, None, 0, Log(), clip=True)
    return read_audio(target, audio_info(target).rate_hz).tobytes().hex()

for line in sys.stdin:
    path = Path(json.loads(line))
    calls = (lambda path: read_audio(path).tobytes().hex(), converted, lambda path: audio_info(path).oddities)
    print(json.dumps([outcome(path, call) for call in calls]), flush=True)
"""


class Reader:
    """Reads files in another process, which is started again if a file kills it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "a.wav"
        self._process = None

    def read(self, content: bytes) -> list:
        """Samples as read and as converted (hexadecimal, None for a named error, or what went wrong), and oddities."""
        self.path.write_bytes(content)
        waiting = SECONDS
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", WORKER],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )  # fmt: skip
            waiting = 6 * SECONDS  # imports
        self._process.stdin.write(json.dumps(str(self.path)) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], waiting)
        line = self._process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        how = f"died: status {self._process.wait()}" if ready else f"hung for {waiting} s"
        self.close()
        return [how, how, None]

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    with contextlib.closing(Reader(tmp_path_factory.mktemp("damaged"))) as reader:
        yield reader


EXACT = {
    "wav": save(SAMPLES),
    "wav with more chunks": save(SAMPLES, format="WAVEX") + b"LIST\x05\0\0\0INFO\0\0",
    "sphere": sphere(PCM, sample_max=f"-i {SAMPLES.max()}", sample_min=f"-i {SAMPLES.min()}"),
    "flac": save(SAMPLES, format="FLAC"),
}
STEREO, FLOATS = np.stack([SAMPLES, -SAMPLES], axis=1), SAMPLES / 32768
FILES = EXACT | {  # the others are for conversion
    "wav of 24 bits": save(SAMPLES, "PCM_24"), "wav of floats": save(FLOATS, "FLOAT"),
    "wav of mu-law": save(SAMPLES, "ULAW"), "wav of ADPCM": save(SAMPLES, "MS_ADPCM"),
    "stereo flac": save(STEREO, "PCM_24", "FLAC"), "RF64": save(SAMPLES, "PCM_16", "RF64"),
    "W64": save(SAMPLES, "PCM_16", "W64"), "AIFF": save(SAMPLES, "PCM_16", "AIFF"),
    "AU": save(SAMPLES, "PCM_16", "AU"), "CAF": save(SAMPLES, "ALAC_16", "CAF"),
    "Vorbis": save(FLOATS, "VORBIS", "OGG"), "Opus": save(FLOATS, "OPUS", "OGG"),
    "MP3": save(STEREO / 32768, "MPEG_LAYER_III", "MP3"),
}  # fmt: skip


def damaged(content: bytes, edits: list[tuple[str, float, int]]) -> bytes:
    """With edits, each at a place that is a share of the file: bits flipped, bytes set, put in or taken out, a cut."""
    content = bytearray(content)
    for kind, share, value in edits:
        place = min(int(share * len(content)), len(content) - 1) if content else 0
        if kind == "cut":
            del content[place:]
        elif kind == "insert":
            content[place:place] = value.to_bytes(4, "little")[: 1 + value % 4]
        elif content and kind == "flip":
            content[place] ^= 1 << value % 8
        elif content and kind == "set":
            content[place : place + 4] = value.to_bytes(4, "little")[: len(content) - place]
        elif content and kind == "delete":
            del content[place : place + 1 + value % 4]
    return bytes(content)


# Most edits are in the headers: a random share of a file of 3 kB would seldom be.
PLACES = st.one_of(st.floats(0, 0.04), st.floats(0, 1))
VALUES = st.one_of(st.sampled_from([0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]), st.integers(0, 0xFFFFFFFF))
KINDS = ("flip", "flip", "flip", "set", "set", "cut", "insert", "delete")
EDITS = st.lists(st.tuples(st.sampled_from(KINDS), PLACES, VALUES), max_size=4)


@settings(max_examples=max(300, settings.default.max_examples), suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from([*EXACT, *EXACT, *EXACT, *FILES]), edits=EDITS)
def test_exact_samples_or_a_named_error(reader, name, edits):
    content = damaged(FILES[name], edits)
    read, converted, oddities = reader.read(content)
    for result in (read, converted):
        assert result is None or set(result) <= set("0123456789abcdef"), result
    if name not in EXACT or read is None:
        return
    samples = bytes.fromhex(read)
    if name == "flac":
        # a checksum of the samples; all zeros means none
        assert samples == PCM or not any(content[26:42])
    else:
        # no other checksum: all that the file has in the place of its samples, and nothing else
        assert samples in content
        assert len(samples) == len(PCM) or oddities and abs(len(samples) - len(PCM)) <= MOST_BYTES
    assert converted in (read, None)  # libsndfile, which decodes for conversion, may refuse what is read here


@pytest.mark.parametrize("name", EXACT)
def test_whole_files_are_read_and_truncated_ones_refused(reader, name):
    assert reader.read(EXACT[name]) == [PCM.hex(), PCM.hex(), []]
    for end in range(0, len(EXACT[name]) - MOST_BYTES, 97):
        assert reader.read(EXACT[name][:end])[:2] == [None, None], end


def test_nothing_is_allocated_from_a_header(reader):
    assert reader.read(sphere(PCM, sample_count=f"-i {2**31 - 1}")) == [None, None, None]
