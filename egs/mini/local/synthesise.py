"""Makes the embedded corpus: synthetic speech in the layout of TIMIT, the same bytes on every run.

28 voices (14 female) of seven English accents as dialect regions read ten sentences each, about 15 minutes in all.
24 voices are in TRAIN, four in TEST. Written for each utterance, as on the LDC's disc:

    TRAIN/DR1/FABK0/SX1.WAV   NIST SPHERE, 16 kHz, 16-bit
                    SX1.PHN   first and last sample and label of each phone, h# at both ends
                    SX1.WRD   the same for words
                    SX1.TXT   the sentence
    DOC/SPKRINFO.TXT          sex, region, use, height of each speaker

The synthesiser's own output lacks two things that a recording has and that decide a likelihood: a level, and noise
between the words. So each voice is scaled to a level, and gets a room tone of its own, both drawn (with a fixed seed)
from the ranges measured in intact utterances of TIMIT: speech of 250 to 800 RMS and a floor of 2 to 6 RMS, in units of
one 16-bit step. A louder floor would set the likelihood of every model alike; none at all would make the pauses, a
sixth of the corpus, free for any model.
"""

import argparse
import hashlib
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import scipy
from scipy.signal import lfilter, resample_poly

from speechlvm.bin.cli import run_main
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import disk_errors, hash_file, is_done, mark_done

sys.path.insert(0, str(Path(__file__).resolve().parent))
import espeak

LOCAL = Path(__file__).resolve().parent
RATE_HZ = 16000
SEED = 20260
SPEECH_RMS, FLOOR_RMS = (250.0, 800.0), (2.0, 6.0)
MARGIN_SECONDS = (0.10, 0.20)
SPHERE_HEADER_BYTES = 1024
PAUSES = ("_", "_:")

ACCENTS = ("en-us", "en-us-nyc", "en", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")

# Speaker, region, use, voice variant, words per minute, pitch, pitch range, height. Two women and two men a region.
# The heights are invented: a synthesiser has none. They vary as a population's do and are tied to nothing audible.
SPEAKERS = """
FABK0 1 TRN f1       150 50 50 5'4"
FCMD0 1 TST Alicia   148 36 50 5'6"
MDRE0 1 TRN m1       146 50 55 5'10"
MGHT0 1 TRN Michael  152 58 45 6'0"
FEJL0 2 TRN f2       156 46 50 5'2"
FHWS0 2 TRN steph    144 40 55 5'7"
MJBR0 2 TRN m2       158 52 50 5'8"
MKPN0 2 TRN Denis    142 62 60 6'2"
FKTV0 3 TRN f3       147 54 45 5'5"
FLDM0 3 TRN belinda  151 34 40 5'9"
MLRC0 3 TST m3       149 48 50 5'11"
MNSG0 3 TRN Lee      155 60 55 5'9"
FMPA0 4 TRN f4       145 44 60 5'3"
FNEB0 4 TRN Annie    140 56 50 5'8"
MPTW0 4 TRN m4       143 54 50 5'7"
MRKH0 4 TRN robert   150 64 50 6'1"
FPOS0 5 TST f5       152 48 45 5'5"
FRIG0 5 TRN aunty    146 38 50 5'1"
MSVD0 5 TRN m5       154 46 50 5'10"
MTLY0 5 TRN adam     147 50 50 5'6"
FSCN0 6 TRN anika    139 30 40 5'6"
FTUE0 6 TRN linda    157 28 55 5'4"
MVAJ0 6 TRN m6       148 56 45 5'11"
MWBO0 6 TRN max      141 44 60 5'8"
FVZH0 7 TRN steph2   153 48 50 5'7"
FWIR0 7 TRN Andrea   138 24 45 5'10"
MYCU0 7 TRN m7       150 52 50 6'3"
MZFP0 7 TST m8       145 60 55 5'9"
"""

# The synthesiser's mnemonics in TIMIT's symbols; vowels with an r, which have none, are written as both in one.
LABELS = {
    "p": "p", "b": "b", "t": "t", "t2": "t", "t[": "t", "t#": "dx", "d": "d", "k": "k", "g": "g", "?": "q",
    "tS": "ch", "dZ": "jh", "f": "f", "v": "v", "T": "th", "D": "dh", "s": "s", "z": "z", "S": "sh", "Z": "zh",
    "h": "hh", "m": "m", "n": "n", "n-": "en", "N": "ng", "l": "l", "@L": "el", "r": "r", "r-": "r",
    "j": "y", ";": "y", "w": "w", "w#": "w",
    "i": "iy", "i:": "iy", "I": "ih", "I#": "ix", "I2": "ix", "E": "eh", "a": "ae", "aa": "ae", "A:": "aa", "0": "aa",
    "O:": "ao", "O2": "ao", "V": "ah", "U": "uh", "u:": "uw", "3": "axr", "3:": "er", "IR": "er", "VR": "er",
    "@": "ax", "@2": "ax", "@5": "ax", "a#": "ax",
    "eI": "ey", "aI": "ay", "aI2": "ay", "OI": "oy", "aU": "aw", "oU": "ow",
    "A@": "aar", "O@": "aor", "o@": "aor", "U@": "uhr", "e@": "ehr", "i@3": "ihr", "aI3": "ayr", "aI@": "ayax",
    "i@": "iyax", "_": "pau", "_:": "pau", "_!": "epi",
}  # fmt: skip

# The synthesiser has no event for the closure of a stop: it counts the silence as the end of the phone before.
CLOSURES = {"p": "pcl", "t": "tcl", "k": "kcl", "ch": "tcl", "b": "bcl", "d": "dcl", "g": "gcl", "jh": "dcl"}
LEAST_CLOSURE_SECONDS = 0.02


@dataclass(frozen=True)
class Speaker:
    """A voice as a person: a row of SPEAKERS, and the ids of the sentences it reads."""

    name: str
    region: int
    use: str
    variant: str
    words_per_minute: int
    pitch: int
    pitch_range: int
    height: str
    sentences: tuple[str, ...]


def speakers() -> list[Speaker]:
    """All speakers with their sentences: both SA, five SX shared among speakers of the same use, three SI of their own.

    The first of an id's letters is the sex, as in TIMIT's directories.
    """
    result, counts = [], {"TRN": 0, "TST": 0}
    for index, row in enumerate(SPEAKERS.strip().splitlines()):
        name, region, use, variant, rate, pitch, pitch_range, height = row.split()
        first, available = (1, 20) if use == "TRN" else (21, 10)
        shared = [first + (5 * counts[use] + offset) % available for offset in range(5)]
        own = range(3 * index + 1, 3 * index + 4)
        sentences = ("SA1", "SA2", *(f"SX{number}" for number in shared), *(f"SI{number}" for number in own))
        counts[use] += 1
        settings = (int(rate), int(pitch), int(pitch_range))
        result.append(Speaker(name, int(region), use, variant, *settings, height, sentences))
    return result


def read_sentences() -> dict[str, str]:
    """Sentence id -> text."""
    lines = (LOCAL / "sentences.txt").read_text(encoding="ascii").splitlines()
    return dict(line.split(" ", 1) for line in lines if not line.startswith("#"))


def synthesise_speaker(speaker: Speaker, root: Path) -> float:
    """Writes all utterances of a speaker; to be called once in a process (see `espeak`).

    Returns:
        seconds of speech.
    """
    voice = espeak.Synthesiser(
        ACCENTS[speaker.region - 1], speaker.variant, speaker.words_per_minute, speaker.pitch, speaker.pitch_range
    )
    texts = read_sentences()
    spoken = {sentence: voice.speak(texts[sentence]) for sentence in speaker.sentences}
    generator = np.random.default_rng([SEED, *speaker.name.encode()])
    target_rms = np.exp(generator.uniform(*np.log(SPEECH_RMS)))
    floor_rms = generator.uniform(*FLOOR_RMS)
    resampled = {
        sentence: resample_poly(utterance.samples.astype(np.float64), RATE_HZ // 50, espeak.RATE_HZ // 50)
        for sentence, utterance in spoken.items()
    }
    gain = target_rms / np.sqrt(np.mean(np.concatenate(list(resampled.values())) ** 2))

    directory = root / ("TRAIN" if speaker.use == "TRN" else "TEST") / f"DR{speaker.region}" / speaker.name
    directory.mkdir(parents=True)
    total = 0
    for sentence, utterance in spoken.items():
        lead, tail = (int(RATE_HZ * seconds) for seconds in generator.uniform(*MARGIN_SECONDS, 2))
        scale = RATE_HZ / espeak.RATE_HZ
        phones, speech_end = _phones(utterance, scale, lead, tail)
        speech = resampled[sentence][: max(0, round(speech_end - lead))]
        samples = np.concatenate([np.zeros(lead), gain * speech, np.zeros(tail)])
        samples += _room_tone(generator, len(samples), floor_rms)
        pcm = np.clip(np.rint(samples), -32768, 32767).astype("<i2")
        path = directory / sentence
        _write(path.with_suffix(".WAV"), _sphere_header(pcm) + pcm.tobytes())
        _write(path.with_suffix(".PHN"), _lines(phones))
        _write(path.with_suffix(".WRD"), _lines(_words(utterance, phones, scale, lead)))
        _write(path.with_suffix(".TXT"), f"0 {len(pcm)} {texts[sentence]}\n".encode())
        total += len(pcm)
    return total / RATE_HZ


def _phones(utterance: espeak.Utterance, scale: float, lead: int, tail: int) -> tuple[list[tuple[int, int, str]], int]:
    """Contiguous phones from sample 0 to the end, in samples of the corpus, and where speech ends.

    What the synthesiser gives no extent (an l or r that is wholly in the transition to its neighbour) has no line.
    """
    events = [(lead + round(start * scale), label) for start, label in _with_closures(utterance)]
    while events and events[-1][1] == "pau":
        speech_end = events.pop()[0]
    bounds = [start for start, _ in events] + [speech_end]
    phones = [(0, bounds[0], "h#")]
    for (start, label), end in zip(events, bounds[1:], strict=True):
        if end == start:
            continue
        if label == phones[-1][2] == "pau":
            start = phones.pop()[0]
        phones.append((start, end, label))
    phones.append((speech_end, speech_end + tail, "h#"))
    return phones, speech_end


def _with_closures(utterance: espeak.Utterance) -> list[tuple[int, str]]:
    """First samples and labels, with the digital silence before each stop as its closure."""
    result: list[tuple[int, str]] = []
    for start, name in utterance.phonemes:
        label = LABELS[name]
        if label in CLOSURES and result and result[-1][1] != "pau":
            before = utterance.samples[result[-1][0] : start]
            silence = len(before) - 1 - int(np.max(np.flatnonzero(before), initial=-1))
            if silence >= LEAST_CLOSURE_SECONDS * espeak.RATE_HZ:
                result.append((start - silence, CLOSURES[label]))
        result.append((start, label))
    return result


def _words(
    utterance: espeak.Utterance, phones: list[tuple[int, int, str]], scale: float, lead: int
) -> list[tuple[int, int, str]]:
    """Words from their first phone to the pause or the word that follows."""
    starts = [lead + round(start * scale) for start, _ in utterance.words] + [phones[-1][0]]
    words = []
    for (_, text), start, end in zip(utterance.words, starts, starts[1:], strict=False):
        inside = [phone for phone in phones if start <= phone[0] < end and phone[2] not in ("pau", "h#")]
        if inside:
            words.append((inside[0][0], inside[-1][1], text))
    return words


def _room_tone(generator: np.random.Generator, count: int, rms: float) -> np.ndarray:
    """Stationary Gaussian noise of a room: more of it at low frequencies, as air conditioning and mains leave."""
    white, rumble = generator.standard_normal((2, count))
    rumble = lfilter([np.sqrt(1 - 0.95**2)], [1, -0.95], rumble)
    return rms * (np.sqrt(0.3) * white + np.sqrt(0.7) * rumble)


def _sphere_header(pcm: np.ndarray) -> bytes:
    fields = {
        "sample_count": f"-i {len(pcm)}",
        "sample_rate": f"-i {RATE_HZ}",
        "channel_count": "-i 1",
        "sample_n_bytes": "-i 2",
        "sample_byte_format": "-s2 01",
        "sample_sig_bits": "-i 16",
        "sample_min": f"-i {pcm.min()}",
        "sample_max": f"-i {pcm.max()}",
    }
    lines = ["NIST_1A", f"{SPHERE_HEADER_BYTES:7d}", *(f"{name} {value}" for name, value in fields.items()), "end_head"]
    return ("\n".join(lines) + "\n").encode().ljust(SPHERE_HEADER_BYTES)


def _lines(segments: list[tuple[int, int, str]]) -> bytes:
    return "".join(f"{start} {end} {label}\n" for start, end, label in segments).encode()


def _write(path: Path, data: bytes) -> None:
    with disk_errors(path, path, len(data)):
        path.write_bytes(data)


def _speaker_table(people: list[Speaker]) -> bytes:
    lines = [
        "; Speakers of the embedded corpus: voices of a synthesiser. Heights are invented.",
        ";ID  Sex DR Use  RecDate   BirthDate  Ht    Race Edu  Comments",
        ";--- --- -- ---  --------  --------- -----  ---- ---  -------------------",
    ]
    for speaker in people:
        accent = ACCENTS[speaker.region - 1]
        lines.append(
            f"{speaker.name[1:]}  {speaker.name[0]}  {speaker.region}  {speaker.use}  01/01/01  01/01/01  "
            f"{speaker.height:<6} ???  ??   {accent}+{speaker.variant}"
        )
    return ("\n".join(lines) + "\n").encode()


def _inputs(people: list[Speaker]) -> dict[str, str]:
    """What the corpus depends on: this program, the sentences, the synthesiser and the filtering libraries."""
    library, data = espeak.locate()
    files = [Path(__file__), LOCAL / "espeak.py", LOCAL / "sentences.txt", library]
    files += [data / name for name in ("en_dict", "intonations", "phondata", "phonindex", "phontab")]
    return {
        "files": hashlib.sha256("".join(map(hash_file, files)).encode()).hexdigest(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "speakers": " ".join(speaker.name for speaker in people),
    }


def _in_child(answers: Connection, speaker: Speaker, out: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    answers.send(synthesise_speaker(speaker, out))


def _synthesise_all(people: list[Speaker], out: Path, jobs: int) -> Iterator[float]:
    """Seconds of each speaker, as they get ready; each from a fresh process.

    The synthesiser's output depends on what it said before. Not by `multiprocessing.Pool`: a worker that inherits our
    handler of SIGTERM can lose the signal that is to end it, and everybody waits for ever. Here the signal is held back
    until the child has let go of the handler.
    """
    fork = multiprocessing.get_context("fork")
    waiting = list(people)
    running: dict[Connection, BaseProcess] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                receiver, sender = fork.Pipe(duplex=False)
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
                running[receiver] = fork.Process(target=_in_child, args=(sender, waiting.pop(0), out))
                running[receiver].start()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
                sender.close()
            for receiver in wait(list(running)):
                try:
                    yield receiver.recv()
                except EOFError:
                    raise UserError("a speaker could not be synthesised; what went wrong is said above") from None
                running.pop(receiver).join()
    finally:
        for process in running.values():
            process.terminate()
            process.join()


def make_corpus(out: Path, people: list[Speaker], jobs: int) -> None:
    """Writes the corpus to `out`, complete or not at all; does nothing if it is there already."""
    from tqdm import tqdm

    inputs = _inputs(people)
    if is_done(out, inputs):
        print(f"{out}: complete, nothing to do")
        return
    if out.exists() and not (out / "done.json").exists():
        raise UserError(f"{out}: exists, but was not made by this program; remove it or give another --out")
    temporary = out.with_name(f".{out.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_errors(out):
        (temporary / "DOC").mkdir(parents=True)
    work = _synthesise_all(people, temporary, jobs)
    progress = tqdm(work, "synthesising", len(people), unit="speaker", disable=not sys.stderr.isatty())
    seconds = sum(progress)
    _write(temporary / "DOC" / "SPKRINFO.TXT", _speaker_table(people))
    mark_done(temporary, inputs)
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    utterances = sum(len(speaker.sentences) for speaker in people)
    print(f"{out}: {len(people)} speakers, {utterances} utterances, {seconds / 60:.1f} minutes")


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and makes the corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory of the corpus")
    parser.add_argument("--speakers", default="", help="synthesise only these speakers (default: all)")
    parser.add_argument("--nj", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: all CPUs)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    arguments = parser.parse_args(argv)
    people = speakers()
    unknown = set(arguments.speakers.split()) - {speaker.name for speaker in people}
    if unknown:
        parser.error(f"no such speaker: {' '.join(sorted(unknown))}")
    if arguments.nj < 1:
        parser.error(f"--nj {arguments.nj}: expected at least 1")
    if arguments.speakers:
        people = [speaker for speaker in people if speaker.name in arguments.speakers.split()]
    make_corpus(arguments.out, people, arguments.nj)
    return 0


if __name__ == "__main__":
    run_main(main)
