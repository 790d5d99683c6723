"""Files of compressed utterances, written and read with a trained model or the adaptive reference."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from speechlvm.coding import PCM_CODINGS
from speechlvm.compression import adaptive, autoregressive, bits_back, rans
from speechlvm.compression.container import (
    Arithmetic,
    Entry,
    Header,
    check_pcm,
    read_container,
    read_stream,
    write_container,
)
from speechlvm.compression.source import Source
from speechlvm.experiment.load import SAME_INPUTS, load_experiment
from speechlvm.experiment.trained import Experiment
from speechlvm.utils.errors import ConfigError, UserError

KINDS = {"adaptive": adaptive, "autoregressive": autoregressive, "bits-back": bits_back}
"""Modules with `LANES`, `encode` and `decode`, by their names in headers."""

SHOWN_IDS = 5
"""Of a file, in an error message."""


@dataclass(frozen=True)
class Sizes:
    """What a file consists of.

    Attributes:
        utterances, frames: in it.
        model_bits, table_bits, initial_bits: see `Coded`, of all utterances.
        stream_bits: of all streams, without the initial bits.
        header_bits: of header and index.
        file_bytes: of all.
    """

    utterances: int
    frames: int
    model_bits: float
    table_bits: float
    stream_bits: int
    initial_bits: int
    header_bits: int
    file_bytes: int

    def describe(self, bound: str) -> str:
        """Lines for people; `bound` is the model's."""
        bits = {
            f"model, {bound}": self.model_bits,
            "streams": self.stream_bits,
            "initial bits": self.initial_bits,
            "header and index": self.header_bits,
            "file": 8 * self.file_bytes,
        }
        return "\n".join(
            f"{name:18} {value / self.frames:9.4f} bits per frame, {value / 8:12.0f} bytes"
            for name, value in bits.items()
        )


def load_codec(directory: Path) -> Experiment:
    """A trained model over the cells of PCM values.

    Raises:
        ConfigError: it is not a model of PCM.
    """
    experiment = load_experiment(directory)
    coding = experiment.observation.coding
    if coding not in PCM_CODINGS:
        same = [name for group in SAME_INPUTS if coding in group for name in PCM_CODINGS if name in group]
        if not same:
            raise ConfigError(
                f"--exp {directory}: its coding, {coding}, does not tell all 65 536 PCM values apart; "
                "expected a model trained with linear, mulaw-pcm or mulaw"
            )
        experiment = load_experiment(directory, coding=same[0])
    return experiment


def load_decoder(path: Path, directory: Path | None) -> Experiment | None:
    """What a file was compressed with: a trained model of `load_codec`; None: the adaptive reference.

    Raises:
        UserError: the file is damaged, or needs a model and no directory is given.
    """
    header, _ = read_container(path)
    if header.kind == "adaptive":
        return None
    if directory is None:
        raise UserError(f"{path}: compressed with {header.name}, a trained model; give its experiment as --exp")
    return load_codec(directory)


def model_hash(experiment: Experiment | None) -> str:
    """SHA-256 of all that a model's probabilities are a function of: settings, observation, weights."""
    if experiment is None:
        return adaptive.model_hash()
    config = experiment.config
    settings = [config.model, config.model_conf, config.distribution, config.distribution_conf]
    digest = hashlib.sha256(json.dumps([settings, experiment.observation.to_dict()], sort_keys=True).encode())
    if experiment.model.experts:
        digest.update(adaptive.model_hash().encode())
    for name, weight in sorted(experiment.model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _kind(experiment: Experiment | None) -> str:
    if experiment is None:
        return "adaptive"
    return "autoregressive" if experiment.model.bound == "exact" else "bits-back"


def compress(
    experiment: Experiment | None, source: Source, path: Path, lanes: int | None, advance: Callable[[int], object]
) -> Sizes:
    """Write a file.

    Args:
        experiment: of `load_codec`; None: the adaptive reference.
        source: utterances.
        path: of the file.
        lanes: utterances side by side; None: as many as is usual.
        advance: is called with numbers of frames that are done.

    Raises:
        UserError: the utterances have another rate than those trained on, or the model is broken for one.
    """
    trained_hz = experiment and experiment.observation.rate_hz
    if trained_hz is not None and source.rate_hz != trained_hz:
        raise UserError(
            f"{next(iter(source.frames))}: {source.rate_hz} samples per second; the model of {experiment.name} expects "
            f"{trained_hz}; convert the files, or use --adaptive, which takes any rate"
        )
    name = _kind(experiment)
    header = Header(
        kind=name,
        name=experiment.name if experiment else name,
        model=model_hash(experiment),
        rate_hz=source.rate_hz,
        lanes=lanes or min(KINDS[name].LANES, -(-len(source.frames) // 4) * 4),
        latent_bits=bits_back.latent_bits(experiment, source) if name == "bits-back" else {},
        arithmetic=Arithmetic.here(),
    )
    model_bits = table_bits = initial_bits = stream_bytes = 0
    with write_container(path, header, source.longest_first) as add:
        for coded in KINDS[name].encode(experiment, source, header, advance):
            add(coded.frames, coded.pcm_crc, coded.stream)
            model_bits += coded.model_bits
            table_bits += coded.table_bits
            initial_bits += coded.initial_bits
            stream_bytes += len(coded.stream)
    file_bytes = path.stat().st_size
    return Sizes(
        utterances=len(source.frames),
        frames=sum(source.frames.values()),
        model_bits=model_bits,
        table_bits=table_bits,
        stream_bits=8 * stream_bytes - initial_bits,
        initial_bits=initial_bits,
        header_bits=8 * (file_bytes - stream_bytes),
        file_bytes=file_bytes,
    )


def decompress(
    experiment: Experiment | None, path: Path, utterance: str | None, start: Callable[[int], Callable[[int], object]]
) -> Iterator[tuple[str, np.ndarray, int]]:
    """Id, PCM and rate of the utterances of a file, or of one of them.

    Args:
        experiment: of `load_decoder`.
        path: of the file.
        utterance: that alone; None: all.
        start: is called with the number of frames to decode, and gives what is called with numbers that are done.

    Raises:
        UserError: the file is damaged, from another model, or this machine computes otherwise; the utterances before
            have come.
    """
    header, entries = read_container(path)
    if header.model != (own := model_hash(experiment)):
        there = f"{path}: {entries[0].utterance}: compressed with {header.name}, model {header.model[:16]}"
        if experiment is None:
            raise UserError(f"{there}; here it is model {own[:16]}; use version {header.speechlvm} of speechlvm")
        raise UserError(
            f"{there}; --exp has {experiment.name}, model {own[:16]}; give the experiment that it was compressed with"
        )
    sizes = {level: len(bits) for level, bits in header.latent_bits.items()}
    expected = dict(experiment.model.latent_sizes) if experiment else {}
    if header.kind != _kind(experiment) or sizes != expected:
        raise UserError(f"{path}: its header does not fit its model; copy the file again, or compress again")
    if utterance is not None:
        wanted = [entry for entry in entries if entry.utterance == utterance]
        if not wanted:
            first = ", ".join(entry.utterance for entry in entries[:SHOWN_IDS])
            more = ", ..." if len(entries) > SHOWN_IDS else ""
            raise UserError(f"{path}: has no utterance '{utterance}'; it has {first}{more}")
        entries = bits_back.needed(header, entries, wanted[0]) if header.kind == "bits-back" else wanted
    torch.set_num_threads(header.arithmetic.threads)
    advance = start(sum(entry.frames for entry in entries))
    parse = bits_back.parse if header.kind == "bits-back" else rans.parse

    def read(entry: Entry) -> bytes:
        stream = read_stream(path, entry)
        try:
            parse(stream)
        except ValueError as error:
            raise UserError(f"{path}: {entry.utterance}: malformed stream ({error}); compress again") from error
        return stream

    for entry, pcm in KINDS[header.kind].decode(experiment, header, entries, read, advance):
        check_pcm(path, header, entry, pcm)
        if utterance in (None, entry.utterance):
            yield entry.utterance, pcm, header.rate_hz
