"""festvox-ru: an unpacked package, and the package itself, with tones for speech."""

import io
import lzma
import tarfile
from pathlib import Path

from speechlvm.data.audio import write_wav

from .wavdir import tone

VOICE = "usr/share/festival/voices/russian/msu_ru_nsh_clunits"
# the numbers have gaps; by hash, ru_0001 is for testing and ru_0005 for validation
TEXTS = {
    "ru_0001": "Мелкие кольца вол+ос, падали на лоб.",
    "ru_0002": "Ёж - зверь, и зверь колючий!",
    "ru_0004": "Кто-то идёт: не он ли?",
    "ru_0005": "Дождь шёл, и шёл, весь день.",
    "ru_0013": "О'Нил молчал; молчал и лес.",
}
# some of them are TIMIT's, with other meanings
PHONES = ["m", "ee", "ll", "zh", "y", "zh", "aa", "hh", "aa", "y", "ee", "zh", "m", "aa"]
STEP_FRAMES = 160


def labels(frames: int, doubled: bool) -> str:
    """A .lab file for audio of so many frames: equal parts, and the last ends some milliseconds before the audio."""
    names = ["pau", *PHONES, "pau"] + ["pau"] * doubled
    part = (frames - STEP_FRAMES) // len(names) // STEP_FRAMES * STEP_FRAMES
    ends = [(index + 1) * part + 32 for index in range(len(names) - 1)]
    ends.append((frames - 60 - 32) // STEP_FRAMES * STEP_FRAMES + 32)
    return "#\n" + "".join(f"{end / 16000:.5f} 125 {name}\n" for end, name in zip(ends, names, strict=True))


def make(root: Path, frames: int = 4000) -> Path:
    """Makes `root`, as dpkg-deb -x does: five utterances, the shortest of so many frames."""
    voice = root / VOICE
    for folder in ("wav", "lab", "mcep", "etc", "festival/feats"):
        (voice / folder).mkdir(parents=True)
    (voice / "festival/feats/.something").touch()
    for index, name in enumerate(TEXTS):
        count = frames + 100 * index
        write_wav(voice / f"wav/{name}.wav", tone(index, count), 16000)
        (voice / f"lab/{name}.lab").write_text(labels(count, doubled=index % 2 == 0))
        (voice / f"mcep/{name}.mcep").write_bytes(b"EST_File Track\n")
    lines = [f'( {name} "{text}" )\n' for name, text in TEXTS.items()]
    (voice / "etc/txt.done.data").write_text("".join(lines), encoding="utf-8")
    return root


def ar_member(name: str, data: bytes) -> bytes:
    """A member of an ar archive."""
    header = f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n"
    return header.encode() + data + b"\n" * (len(data) % 2)


def package(root: Path, path: Path) -> Path:
    """A Debian package of the files below `root`, at `path`."""
    tars = {}
    for name in ("control.tar.xz", "data.tar.xz"):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            if name == "data.tar.xz":
                tar.add(root, "./")
        tars[name] = lzma.compress(stream.getvalue(), preset=0)
    members = {"debian-binary": b"2.0\n", **tars}
    path.write_bytes(b"!<arch>\n" + b"".join(ar_member(name, data) for name, data in members.items()))
    return path


def recipe_arguments(root: Path) -> list[str]:
    """Makes the corpus in `root`; arguments of run.sh that go through all stages in a minute."""
    training = (
        "--limits.steps 3 --data.batch_frames 16384 --model_conf.latent 4 --model_conf.hidden 16 --model_conf.state 16"
    )
    options = ["--models", "vrnn_s64", "--train_args", training, "--nj", "1", "--sample_seconds", "0.2"]
    return ["--festvox_ru", str(make(root, frames=16000)), *options]
