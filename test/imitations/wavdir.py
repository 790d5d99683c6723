"""A folder as people have them: several formats and depths, odd names, hidden files, copies, a link that goes round."""

import struct
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ = 16000
NAMES = "bruno 'the voice' O’Neil"


def tone(number: int, frames: int) -> np.ndarray:
    """Noise with a pitch, int16 (frames,); each number its own."""
    generator = np.random.Generator(np.random.Philox(key=number))
    time = np.arange(frames) / RATE_HZ
    pitch = np.sin(2 * np.pi * (100 + 7 * number) * time) * np.hanning(frames)
    return np.rint(4000 * pitch + 200 * generator.standard_normal(frames)).astype(np.int16)


def sphere(samples: np.ndarray) -> bytes:
    """A NIST SPHERE file."""
    head = (
        "NIST_1A\n   1024\nchannel_count -i 1\nsample_rate -i 16000\nsample_n_bytes -i 2\n"
        f"sample_byte_format -s2 01\nsample_count -i {len(samples)}\nend_head\n"
    )
    return head.encode().ljust(1024) + samples.astype("<i2").tobytes()


def make(root: Path, files: int = 12, frames: int = 12000) -> Path:
    """Makes the folder `root`.

    Args:
        root: where.
        files: 16-bit mono wav files by three speakers, beside what is odd.
        frames: of the shortest file.

    Returns:
        root. It holds `files` + 9 recordings, one of them twice, of which `files` + 3 need no conversion.
    """
    numbers = iter(range(1000))

    def samples(channels: int = 1) -> np.ndarray:
        number = next(numbers)
        one = tone(number, frames + 16 * number)
        return one if channels == 1 else np.stack([one, one // 2], axis=1)

    homes = [root / "anna", root / "sessions 2" / NAMES, root / "sessions 2" / "çelik"]
    for home in homes:
        home.mkdir(parents=True)
    for index in range(files):
        soundfile.write(homes[index % 3] / f"{index:03d}.wav", samples(), RATE_HZ, subtype="PCM_16")
    soundfile.write(root / "lossless.FLAC", samples(), RATE_HZ, format="FLAC", subtype="PCM_16")
    (root / "speech.sph").write_bytes(sphere(samples()))
    soundfile.write(root / "été (1).wav", samples(), RATE_HZ, subtype="PCM_16")
    soundfile.write(root / "two\nlines.wav", samples(), RATE_HZ, subtype="PCM_16")
    soundfile.write(root / "stereo.wav", samples(2), RATE_HZ, subtype="PCM_16")
    soundfile.write(root / "studio.wav", samples(), RATE_HZ, subtype="PCM_24")
    soundfile.write(root / "editor.wav", samples() / 32768, RATE_HZ, subtype="FLOAT")
    soundfile.write(root / "mac.aiff", samples(), RATE_HZ, subtype="PCM_16")
    soundfile.write(root / "phone.ogg", samples() / 32768, RATE_HZ, format="OGG", subtype="VORBIS")
    (root / "copy of 000.wav").write_bytes((homes[0] / "000.wav").read_bytes())
    (root / "anna" / "._000.wav").write_bytes(struct.pack(">II", 0x00051607, 0x00020000).ljust(82, b"\0"))
    (root / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (root / "anna" / "notes.txt").write_text("recorded in May\n", encoding="utf-8")
    (root / "sessions 2" / "up").symlink_to("..")
    return root


def recipe_arguments(root: Path) -> list[str]:
    """Makes the folder `root`; arguments of run.sh that go through all stages in a minute."""
    training = (
        "--limits.steps 3 --data.batch_frames 16384 --model_conf.latent 4 --model_conf.hidden 16 --model_conf.state 16"
    )
    return [
        *("--wav_dir", str(make(root)), "--bits", "16", "--channel", "mix", "--speakers", "folder"),
        *("--models", "vrnn_s64", "--train_args", training, "--nj", "1", "--sample_seconds", "0.2"),
    ]
