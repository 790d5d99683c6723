"""Archives of mu-law codes and log-mel features, for analyses and other toolkits; models do not read them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

import numpy as np

from speechlvm.utils.shards import read_shards, remove_shards_beyond, write_index, write_shard

MEL_HOP_FRAMES = 64
MEL_WINDOW_FRAMES = 256
MEL_BINS = 80
MEL_FLOOR = 1e-10


def mulaw_codes(rate_hz: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function int16 (T,) -> int32 (T,), 16-bit mu-law codes."""
    from speechlvm.coding import PCM_OFFSET, build_coding

    codes = build_coding("mulaw").codes
    return lambda samples: codes[samples.astype(np.int32) + PCM_OFFSET]


def mel_power(rate_hz: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function int16 (T,), T >= 1 -> float32 (T // 64 + 1, 80), mel power spectrogram (source A, 3.2).

    Samples are scaled to [-1, 1]. Step i is centred at frame 64 i; utterances are padded with silence, so that those
    shorter than a window have a spectrum, too.
    """
    import torch
    import torchaudio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about empty bins, narrower than the spacing of frequencies
        transform = torchaudio.transforms.MelSpectrogram(
            sample_rate=rate_hz,
            n_fft=MEL_WINDOW_FRAMES,
            hop_length=MEL_HOP_FRAMES,
            n_mels=MEL_BINS,
            pad_mode="constant",
        )
    return lambda samples: transform(torch.from_numpy(samples.astype(np.float32) / 32768.0)).T.contiguous().numpy()


def log_of_mel(power: np.ndarray) -> np.ndarray:
    """Natural logarithm of mel power, floored at `MEL_FLOOR`."""
    return np.log(np.maximum(power, np.float32(MEL_FLOOR)))


def log_mel(rate_hz: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function int16 (T,), T >= 1 -> float32 (T // 64 + 1, 80), logarithm of `mel_power`."""
    power = mel_power(rate_hz)
    return lambda samples: log_of_mel(power(samples))


TRANSFORMS = {"mulaw": mulaw_codes, "logmel": log_mel}


def write(directory: Path, job: int, items: Iterable[tuple[str, np.ndarray]], inputs: dict) -> None:
    """Write one job's feats.<job>.ark and, last, shard.<job>.json."""
    with write_shard(directory, job, inputs, ["feats"]) as shard:
        stream = shard.streams["feats"]
        shard.entries["feats"] = [[u, _write_record(stream, u, values), len(values)] for u, values in items]


def _write_record(stream: IO[bytes], utterance: str, value: np.ndarray) -> int:
    """Append a record as kaldiio writes arrays; returns its offset, as in scp files."""
    import kaldiio

    offset = stream.tell() + len(utterance.encode()) + 1
    kaldiio.save_ark(stream, {utterance: value})
    return offset


def merge(directory: Path, jobs: int) -> None:
    """Join the shards into feats.scp and utt2num_frames."""
    write_index(directory, read_shards(directory, jobs), "feats", "utt2num_frames")
    remove_shards_beyond(directory, jobs, "feats")
