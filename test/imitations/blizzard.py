"""The audiobooks of the Blizzard Challenge 2013 in small: noise for speech, in the layouts of the release."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import lfilter

# As the release has them: one MP3 file to a chapter, books in collections, at several sampling rates.
UNSEGMENTED = {
    "jane_austen/emma": (4, "emma_{:02d}.mp3", 44100, 1),
    "jane_austen/Persuasion": (2, "Persuasion Chapter {:d}.MP3", 22050, 2),
    "young_readers/the_jungle_books/the_jungle_book": (2, "jungle{:02d}.mp3", 44100, 1),
    "christmas/christmas_stories/the_gift_of_the_magi": (1, "gift_of_the_magi.mp3", 48000, 2),
}
# One to a sentence, without loss.
SEGMENTED = {"emma": ("CB-EM-{:02d}-{:02d}.wav", 3, 3), "jane_eyre": ("CB-JE-{:02d}-{:02d}.wav", 2, 2)}


def speech(seed: int, frames: int, channels: int = 1) -> np.ndarray:
    """(frames, channels) float64: resonant noise of varying loudness over a floor that is never digital silence."""
    generator = np.random.default_rng(seed)
    voiced = lfilter([1.0], [1.0, -1.6, 0.8], generator.standard_normal((frames, channels)), axis=0)
    gain = 0.01 * (1.2 + np.sin(np.arange(frames) / 3000 + seed))
    return np.clip(gain[:, None] * voiced + 1e-4 * generator.standard_normal((frames, channels)), -0.99, 0.99)


def audio(values: np.ndarray, rate_hz: int, **options: str) -> bytes:
    """The file of some audio, in a container that options name as soundfile does."""
    stream = io.BytesIO()
    with soundfile.SoundFile(stream, "w", rate_hz, values.shape[1], **options) as file:
        for start in range(0, len(values), 4096):  # libsndfile's Vorbis encoder overflows its stack on long blocks
            file.write(values[start : start + 4096])
    return stream.getvalue()


def make(root: Path, seconds: float = 2.0) -> Path:
    """The corpus as most have it: the big archive unpacked, with what lies about in it, and a zip file beside.

    Args:
        root: a new directory; blanks in its path should do no harm.
        seconds: of each chapter, and of some a little more.
    """
    train = root / "Lessac_Blizzard2013_CatherineByers_train"
    seed = 0
    for book, (chapters, name, rate_hz, channels) in UNSEGMENTED.items():
        home = train / "unsegmented" / book
        home.mkdir(parents=True)
        for chapter in range(1, chapters + 1):
            seed += 1
            values = speech(seed, int((seconds + 0.1 * chapter) * rate_hz), channels)
            (home / name.format(chapter)).write_bytes(audio(values, rate_hz, format="MP3"))
        (home / "Cover.JPG").write_bytes(b"\xff\xd8\xff\xe0 a picture")
    (train / "unsegmented/jane_austen/._emma_01.mp3").write_bytes(bytes(16))
    (train / "training_inventory.xls").write_bytes(b"\xd0\xcf\x11\xe0 a table")
    (root / "README_for_Lessac_Blizzard2013_CatherineByers_train").write_text("About this release\n")
    write_zip(root / "BlackBeauty.zip", {"BlackBeauty/01.wav": audio(speech(99, 44100), 44100, format="WAV")})
    return root


def make_packed(root: Path, seconds: float = 2.0) -> Path:
    """The corpus as it comes: zip files, one of them of zip files, with sentences of books in several containers."""
    root.mkdir(parents=True)
    parts = {}
    for book, (name, chapters, sentences) in SEGMENTED.items():
        files = {}
        for chapter in range(1, chapters + 1):
            for sentence in range(1, sentences + 1):
                values = speech(1000 * chapter + 10 * sentence + len(book), int(seconds * 44100))
                files[f"{book}/{name.format(chapter, sentence)}"] = audio(
                    values, 44100, format="WAV", subtype="PCM_16" if sentence % 2 else "PCM_24"
                )
                files[f"{book}/{name.format(chapter, sentence)[:-4]}.txt"] = b"A sentence.\n"
        parts[book] = files
    write_zip(root / "BC2013_segmented_v0_wav1.zip", parts["emma"])
    write_zip(root / "BC2013_segmented_v0_wav2.ZIP", parts["jane_eyre"])
    beauty = {
        f"Part{part}.zip": zip_bytes(
            {
                f"Black Beauty/BB_{part}.{kind.lower()}": audio(
                    speech(50 + part, int(seconds * rate_hz)), rate_hz, format=kind
                )
            }
        )
        for part, kind, rate_hz in ((1, "FLAC", 44100), (2, "OGG", 22050), (3, "AIFF", 16000))
    }
    write_zip(root / "BlackBeauty.zip", {**beauty, "__MACOSX/._Part1.zip": bytes(8), "cover.png": b"\x89PNG"})
    return root


def zip_bytes(files: dict[str, bytes]) -> bytes:
    """A zip file; the same bytes for the same files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    """Writes a zip file."""
    path.write_bytes(zip_bytes(files))


def recipe_arguments(root: Path) -> list[str]:
    """Makes the corpus in `root`; arguments of run.sh that go through all stages in a minute."""
    training = (
        "--limits.steps 3 --validation.every_steps 3 --data.batch_frames 32000 --model_conf.latent 8 "
        "--model_conf.hidden 16 --model_conf.state 16 --model_conf.embedding 16"
    )
    return [
        *("--blizzard", str(make(root, 0.7)), "--nj", "1", "--models", "zforcing_s200_z256_kla_aux_normal"),
        *("--tables", "B1", "--train_args", training, "--sample_seconds", "0.2", "--analyses", "levels"),
    ]
