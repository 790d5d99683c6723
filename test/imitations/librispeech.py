"""LibriSpeech and Mini LibriSpeech in small: real speakers' ids and sexes, and noise for speech."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 16000
# Ids and sexes as in the corpus's own table. Of train-clean-100's, 5652 and 6081 are held out for validation.
SPEAKERS = {
    "train-clean-100": {"19": "F", "32": "F", "5652": "F", "26": "M", "27": "M", "6081": "M"},
    "train-clean-5": {"19": "F", "1088": "F", "26": "M", "1867": "M"},
    "dev-clean": {"84": "F", "174": "M"},
    "dev-clean-2": {"84": "F", "174": "M"},
    "dev-other": {"700": "F", "116": "M"},
    "test-clean": {"121": "F", "61": "M"},
    "test-other": {"367": "F", "1688": "M"},
}
WORDS = ("THE", "SEA", "WAS", "CALM", "AND", "MISTER", "BENNET'S", "HORSE", "STOOD", "STILL")
TABLE_HEADER = """; Some pipe(|) separated metadata about all LibriVox readers, whose work was used
; in the corpus.
;
;ID  |SEX| SUBSET           |MINUTES| NAME
"""


def noise(seed: int, frames: int) -> np.ndarray:
    """(frames,) int16: resonant noise in bursts over a floor that is never digital silence."""
    generator = np.random.default_rng(seed)
    source = generator.standard_normal(frames)
    decay = 0.97 ** np.arange(200) * np.cos(0.25 * np.arange(200))
    voiced = np.convolve(source, decay)[:frames] * np.clip(np.sin(np.arange(frames) / 1500 + seed), 0, 1)
    return np.rint(400 * voiced + 4 * generator.standard_normal(frames)).astype(np.int16)


def write_chapter(directory: Path, speaker: str, chapter: int, numbers: Iterable[int], frames: int) -> None:
    """Adds utterances to ``<directory>/<speaker>/<chapter>``, with their transcripts."""
    home = directory / speaker / str(chapter)
    home.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in numbers:
        name = f"{speaker}-{chapter}-{number:04d}"
        seed = 1000 * int(speaker) + number
        soundfile.write(home / f"{name}.flac", noise(seed, frames + 160 * number), RATE_HZ, subtype="PCM_16")
        lines.append(f"{name} {' '.join(WORDS[(seed + i) % len(WORDS)] for i in range(4))}\n")
    (home / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines), encoding="utf-8")


def write_speakers(corpus: Path, sets: dict[str, dict[str, str]]) -> None:
    """SPEAKERS.TXT with the speakers of some sets, who are there once each."""
    rows = {}
    for name, speakers in sets.items():
        subset = name.replace("clean-5", "clean-100").removesuffix("-2")
        rows.update(
            {int(speaker): f"{speaker:<4} | {sex} | {subset:<16} | 25.19 | X\n" for speaker, sex in speakers.items()}
        )
    text = TABLE_HEADER + "".join(rows[speaker] for speaker in sorted(rows))
    (corpus / "SPEAKERS.TXT").write_text(text, encoding="utf-8")


def make(root: Path, sets: Iterable[str] = tuple(SPEAKERS), utterances: int = 2, frames: int = 8000) -> Path:
    """The corpus below ``<root>/LibriSpeech``; each speaker reads a chapter of `utterances` utterances.

    Args:
        root: where it is laid out.
        sets: those of them that are there.
        utterances: of each speaker.
        frames: of the shortest utterance, at 16 kHz.

    Returns:
        ``<root>/LibriSpeech``.
    """
    corpus = root / "LibriSpeech"
    for name in sets:
        for index, speaker in enumerate(SPEAKERS[name]):
            write_chapter(corpus / name, speaker, 128104 + index, range(utterances), frames)
    write_speakers(corpus, SPEAKERS)
    (corpus / "README.TXT").write_text("1. General information\n", encoding="utf-8")
    return corpus


def recipe_arguments(root: Path) -> list[str]:
    """Makes the corpus in `root`; arguments of run.sh that go through all stages in a minute."""
    training = "--limits.steps 3 --model_conf.width 16 --data.batch_frames 16000 --data.segment_frames 8000"
    return [
        *("--librispeech", str(make(root, ("train-clean-100", "dev-clean"))), "--test_sets", "dev_clean", "--nj", "1"),
        *("--models", "cwvae_s64_z96_l1", "--train_args", training, "--sample_seconds", "0.1"),
    ]
