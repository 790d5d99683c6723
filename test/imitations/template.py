"""The layout that egs/TEMPLATE has before anything is filled in: <set>/<speaker>/<name>, audio or vectors."""

from pathlib import Path

import numpy as np

from speechlvm.data.audio import write_wav

from .wavdir import tone


def make(root: Path, ending: str = "wav", files: int = 3, frames: int = 4000) -> Path:
    """Makes the corpus `root`.

    Args:
        root: where.
        ending: wav, 16-bit mono audio, or csv, of three channels.
        files: of each set.
        frames: of the shortest audio file; files of vectors have a hundredth.
    """
    for use in ("train", "valid", "test"):
        for index in range(files):
            home = root / use / f"{use[:2]}{index % 2}"
            home.mkdir(parents=True, exist_ok=True)
            samples = tone(index + 3 * len(use), frames + index)
            if ending == "wav":
                write_wav(home / f"{index}.wav", samples, 16000)
            else:
                values = samples[: frames // 100 * 3].reshape(-1, 3) / 1000
                np.savetxt(home / f"{index}.csv", values, "%.3f", ",", header="x,y,z", comments="")
    (root / "train/tr0/notes.doc").write_text("x")
    return root
