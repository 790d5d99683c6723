"""Audio files damaged at random: exact samples, a few less and that is told, or an error that names the file.

All in bounded memory and time.

Files are read in a process of their own with a gigabyte of address space; one that dies or hangs is a failure.
`python test/speechlvm/data/test_damaged_audio.py 10000` goes through that many damaged files of more formats.
"""

import contextlib
import io
import json
import os
import select
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

RATE_HZ = 16000
SAMPLES = np.random.default_rng(0).integers(-9000, 9000, 1500).astype(np.int16)
SECONDS = 10
MOST_BYTES = 48  # that may be missing: a header, which some programs count as data, and what an edit adds
WORKER = """
import hashlib, json, resource, sys
from pathlib import Path
import numpy, soundfile, soxr
from speechlvm.data.audio import audio_info, read_audio
from speechlvm.data.corpora.convert import convert_audio
from speechlvm.data.corpora.preparation import Log
from speechlvm.utils.errors import UserError

resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

def outcome(path, call):
    try:
        return call().tobytes().hex()
    except UserError as error:
        if len(str(error).splitlines()) == 1 and str(path) in str(error):
            return None
        return f"unnamed: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"

def converted(path):
    target = path.with_name("target.wav")
    convert_audio(path, target, None, 0, Log(), clip=True)
    return read_audio(target, audio_info(target).rate_hz)

def oddities(path):
    try:
        return audio_info(path).oddities
    except UserError:
        return ()

for line in sys.stdin:
    path = Path(json.loads(line))
    calls = (lambda: read_audio(path), lambda: converted(path))
    print(json.dumps([*(outcome(path, call) for call in calls), oddities(path)]), flush=True)
"""


class Reader:
    """Reads files in another process, which is started again where one kills it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "a.wav"
        self._process = None

    def read(self, content: bytes) -> list:
        """What reading and converting give: samples in hexadecimal, None for a named error, or what went wrong.

        And what is told of the file.
        """
        self.path.write_bytes(content)
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", WORKER],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )  # fmt: skip
            waiting = 6 * SECONDS  # imports
        else:
            waiting = SECONDS
        self._process.stdin.write(json.dumps(str(self.path)) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], waiting)
        line = self._process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        how = f"died: status {self._process.wait()}" if ready else f"hung for {waiting} s"
        self.close()
        return [how, how, []]

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def sphere() -> bytes:
    """With the extrema of its samples, as TIMIT's."""
    lines = [
        "NIST_1A", "   1024", "database_id -s5 TIMIT", f"sample_count -i {len(SAMPLES)}", "sample_rate -i 16000",
        f"sample_max -i {SAMPLES.max()}", f"sample_min -i {SAMPLES.min()}", "channel_count -i 1", "sample_n_bytes -i 2",
        "sample_byte_format -s2 01", "sample_coding -s3 pcm", "end_head", "",
    ]  # fmt: skip
    return "\n".join(lines).encode().ljust(1024) + SAMPLES.astype("<i2").tobytes()


def save(samples=SAMPLES, **options: str) -> bytes:
    """As libsndfile writes it."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE_HZ, **options)
    return file.getvalue()


FILES = {
    "wav": save(format="WAV", subtype="PCM_16"),
    "wav with more chunks": save(format="WAVEX", subtype="PCM_16") + b"LIST\x05\0\0\0INFO\0\0",
    "sphere": sphere(),
    "flac": save(format="FLAC", subtype="PCM_16"),
}
EXACT = tuple(FILES)


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


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    with contextlib.closing(Reader(tmp_path_factory.mktemp("damaged"))) as reader:
        yield reader


def check(reader: Reader, name: str, content: bytes) -> str:
    """Raises AssertionError, or says what became of a file that was made by damaging one of FILES."""
    read, converted, told = reader.read(content)
    for result in (read, converted):
        assert result is None or set(result) <= set("0123456789abcdef"), result
    if name in EXACT and read is not None:
        samples = bytes.fromhex(read)
        if name == "flac":
            # a checksum of the samples; what is all zeros is none
            assert samples == SAMPLES.astype("<i2").tobytes() or not any(content[26:42])
        else:
            # no other checksum: what the file has in the place of its samples, all of it, and nothing else
            assert samples in content
            assert len(samples) == 2 * len(SAMPLES) or told and abs(len(samples) - 2 * len(SAMPLES)) <= MOST_BYTES
        assert converted in (read, None)  # libsndfile, which decodes for conversion, may refuse what is read here
    return "read" if read is not None else "converted" if converted is not None else "refused"


@settings(max_examples=250, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(EXACT), edits=EDITS)
def test_exact_samples_or_a_named_error(reader, name, edits):
    check(reader, name, damaged(FILES[name], edits))


@pytest.mark.parametrize("name", EXACT)
def test_whole_files_are_read(reader, name):
    exact = SAMPLES.astype("<i2").tobytes().hex()
    assert reader.read(FILES[name]) == [exact, exact, []]


@pytest.mark.parametrize("name", EXACT)
def test_every_cut_is_refused(reader, name):
    for end in range(0, len(FILES[name]) - MOST_BYTES, 97):
        assert reader.read(FILES[name][:end]) == [None, None, []], end


def other_formats() -> dict[str, bytes]:
    """What conversion reads."""
    stereo = np.stack([SAMPLES, -SAMPLES], axis=1)
    floats = SAMPLES / 32768
    return {
        "wav of 24 bits": save(format="WAV", subtype="PCM_24"),
        "wav of floats": save(floats, format="WAV", subtype="FLOAT"),
        "wav of mu-law": save(format="WAV", subtype="ULAW"), "wav of ADPCM": save(format="WAV", subtype="MS_ADPCM"),
        "stereo flac": save(stereo, format="FLAC", subtype="PCM_24"), "RF64": save(format="RF64", subtype="PCM_16"),
        "W64": save(format="W64", subtype="PCM_16"), "AIFF": save(format="AIFF", subtype="PCM_16"),
        "AU": save(format="AU", subtype="PCM_16"), "CAF": save(format="CAF", subtype="ALAC_16"),
        "Vorbis": save(floats, format="OGG", subtype="VORBIS"), "Opus": save(floats, format="OGG", subtype="OPUS"),
        "MP3": save(stereo / 32768, format="MP3"),
    }  # fmt: skip


def main(count: int) -> int:
    """Damages `count` files at random; prints what became of them by format, and each failure with the edits."""
    files = {**FILES, **other_formats()}
    outcomes: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as name, contextlib.closing(Reader(Path(name))) as reader:
        for seed in range(count):
            generator = np.random.default_rng(seed)
            name = list(files)[seed % len(files)]
            edits = [
                (
                    KINDS[generator.integers(len(KINDS))],
                    float(generator.choice([generator.uniform(0, 0.04), generator.uniform()])),
                    int(generator.choice([0, 1, 2, 0x7FFFFFFF, 0xFFFFFFFF, *generator.integers(0, 1 << 32, 5)])),
                )
                for _ in range(generator.integers(1, 5))
            ]
            try:
                outcome = check(reader, name, damaged(files[name], edits))
            except AssertionError as error:
                outcome = "FAILED"
                print(f"seed {seed}, {name}, {edits}: {str(error)[:300]}", flush=True)
            outcomes[name, outcome] += 1
    for (name, outcome), number in sorted(outcomes.items()):
        print(f"{name:22} {outcome:10} {number}")
    return int(any(outcome == "FAILED" for _, outcome in outcomes))


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1])))
