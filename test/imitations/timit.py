"""TIMIT: the layout of the disc, with tones for speech."""

from pathlib import Path

import numpy as np

SPEAKERS = {"FABC0": ("TRAIN", 1), "MDEF0": ("TRAIN", 2), "FGHI1": ("TRAIN", 2), "MJKL0": ("TEST", 1)}
SENTENCES = ("SA1", "SX12", "SI1034")
SPKRINFO = """; a comment
ABC0  F  1  TRN  01/30/86  02/18/62  5'6"   WHT  BS
DEF0  M  2  TRN  03/11/86  01/08/60  6'02"  WHT  BS   LIKES TEA
GHI1  F  2  TRN  03/11/86  01/08/60  5'11"  WHT  BS
JKL0  M  1  TST  03/11/86  01/08/60  5'0"   WHT  BS
"""


def sphere(samples: np.ndarray) -> bytes:
    head = (
        f"NIST_1A\n   1024\nchannel_count -i 1\nsample_rate -i 16000\nsample_n_bytes -i 2\n"
        f"sample_byte_format -s2 01\nsample_count -i {len(samples)}\nend_head\n"
    )
    return head.encode().ljust(1024) + samples.astype("<i2").tobytes()


def make(root: Path) -> Path:
    """A corpus of 4 speakers with 3 utterances each, as the disc has it."""
    for index, (speaker, (use, region)) in enumerate(SPEAKERS.items()):
        home = root / use / f"DR{region}" / speaker
        home.mkdir(parents=True)
        for number, sentence in enumerate(SENTENCES):
            count = 3000 + 100 * index + number
            samples = np.rint(500 * np.sin(np.arange(count) * (0.05 + 0.01 * index))).astype(np.int16)
            (home / f"{sentence}.WAV").write_bytes(sphere(samples))
            (home / f"{sentence}.PHN").write_text(f"0 1000 h#\n1000 2000 ax\n2000 {count} h#\n")
            (home / f"{sentence}.WRD").write_text("1000 1600 a\n1500 2000 b\n")
            (home / f"{sentence}.TXT").write_text(f"0 {count} A  b, {speaker}.\n")
    (root / "DOC").mkdir()
    (root / "DOC/SPKRINFO.TXT").write_text(SPKRINFO)
    return root


def recipe_arguments(root: Path) -> list[str]:
    """Makes the corpus in `root`; arguments of run.sh that go through all stages in a minute."""
    training = (
        "--limits.steps 3 --data.batch_frames 8000 --model_conf.channels 16 --model_conf.latents [8,4] "
        "--model_conf.dilations [1,2] --model_conf.output_layers 1"
    )
    options = ["--models", "stcn_s64", "--train_args", training, "--nj", "1", "--sample_seconds", "0.1"]
    return ["--timit", str(make(root)), *options]
