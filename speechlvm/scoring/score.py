"""Scoring: every utterance once, whole, in exact chunks, with noise keyed by utterance.

Memory does not grow with the length of utterances: an utterance longer than a batch is read, encoded and scored chunk
by chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from speechlvm.data.dumps.dataset import Batch, Segment, consecutive_batches, load_batches
from speechlvm.data.dumps.dump import Dump
from speechlvm.distributions.noise import Noise
from speechlvm.models.base import Model
from speechlvm.models.bound import Features, chunks, slice_features
from speechlvm.observation import AudioObservation, Observation
from speechlvm.scoring.accounting import UtteranceScore
from speechlvm.scoring.objective import total_nats
from speechlvm.scoring.particles import Particles
from speechlvm.utils.devices import to_device
from speechlvm.utils.errors import UserError

AUDIO_BATCH_FRAMES = 512_000
VECTOR_BATCH_FRAMES = 64_000  # networks for vectors are as wide, but have one or a few frames per step
BATCH_BYTES = 2**33
"""Memory of a batch according to `step_bytes`, an upper bound: less than 6 GB, so that 12 GB suffice."""
DEFAULT_CHUNK_FRAMES = 65_536


def most_frames(observation: Observation, given: int | None, model: Model) -> int:
    """Maximum frames per batch: `given`, or a default for audio or vectors, reduced if steps need much memory."""
    default = AUDIO_BATCH_FRAMES if isinstance(observation, AudioObservation) else VECTOR_BATCH_FRAMES
    return given or min(default, max(1, BATCH_BYTES // step_bytes(model)) * model.stack)


def step_bytes(model: Model) -> int:
    """A rough upper bound of the memory of one step of one row without gradients.

    Counts one number for each row or column, whichever are more, of each weight matrix, and eight for each parameter of
    the distributions of its frames.
    """
    units = sum(max(weight.shape) for weight in model.parameters() if weight.dim() == 2)
    numbers = units + 8 * model.stack * model.distribution.parameter_size
    return numbers * next(model.parameters()).element_size()


def score_batch(
    model: Model,
    observation: Observation,
    batch: Batch,
    chunk_frames: int,
    seed: int = 0,
    samples: int = 1,
    resample: bool = False,
) -> list[UtteranceScore]:
    """Scores of the whole utterances of a batch.

    Args:
        model: model in evaluation mode.
        observation: observation on the device of the model.
        batch: whole utterances.
        chunk_frames: frames per chunk, rounded up to a multiple of the model's hop; does not change results.
        seed: seed of the noise of latents.
        samples: K > 1 gives the importance-weighted bound log mean_k p(x, z_k) / q(z_k | x).
        resample: whether samples are the particles of FIVO (`scoring/particles.py`).

    Raises:
        UserError: a log-likelihood is not finite; the message names the utterance.
    """
    chunk = whole_hops(model, chunk_frames)
    with torch.no_grad():
        parts = batch_parts(model, observation, batch, chunk)
        scored = _score_parts(model, observation, parts, batch.noise_keys(seed, "score"), samples, resample)
    return _utterance_scores(batch.segments, *scored)


@dataclass(frozen=True)
class Part:
    """A chunk of a batch or of a long utterance, on the device of the model.

    Attributes:
        data: (B, T) or (B, T, C), as in the dump.
        inputs: (B, T, C), inputs of the model.
        lengths: (B,), remaining frames of each row from the start of the chunk on.
        features: features of the chunk.
    """

    data: Tensor
    inputs: Tensor
    lengths: Tensor
    features: Features


def whole_hops(model: Model, frames: int) -> int:
    """`frames` rounded up to a multiple of the model's hop, at least one."""
    return max(1, math.ceil(frames / model.hop)) * model.hop


def batch_parts(model: Model, observation: Observation, batch: Batch, chunk: int) -> Iterator[Part]:
    """The chunks of a batch, encoded together."""
    reference = next(model.parameters())
    data, lengths = to_device(batch.data, reference.device), to_device(batch.lengths, reference.device)
    inputs = observation.inputs(data, lengths).to(reference.dtype)
    features = model.encode(inputs, lengths)
    for start, stop in chunks(data.shape[1], chunk):
        of_chunk = slice_features(features, start, stop)
        yield Part(data[:, start:stop], inputs[:, start:stop], lengths - start, of_chunk)


def utterance_parts(model: Model, observation: Observation, dump: Dump, segment: Segment, chunk: int) -> Iterator[Part]:
    """The chunks of one utterance, which is never in memory as a whole."""
    reference = next(model.parameters())

    def read(start: int, stop: int) -> tuple[Tensor, Tensor]:
        data = dump.read(segment.utterance, segment.start + start, segment.start + stop)
        data = to_device(torch.from_numpy(data.copy()).unsqueeze(0), reference.device)
        lengths = torch.full((1,), stop - start, device=reference.device)
        return data, observation.inputs(data, lengths).to(reference.dtype)

    encoded = model.encode_chunks(lambda start, stop: read(start, stop)[1], segment.frames, chunk)
    for (start, stop), features in zip(chunks(segment.frames, chunk), encoded, strict=True):
        left = torch.full((1,), segment.frames - start, device=reference.device)
        yield Part(*read(start, stop), left, features)


def _score_parts(
    model: Model, observation: Observation, parts: Iterator[Part], keys: list[tuple], samples: int, resample: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Nats (B,) and their terms, (B,) each; arguments as in `score_batch`."""
    reference = next(model.parameters())
    particles = Particles(model, Noise(keys, reference.device, reference.dtype), samples, resample)
    for part in parts:
        target = observation.target(part.data)
        target = target.to(reference.dtype) if target.is_floating_point() else target
        particles.add(part.inputs, target, part.lengths, part.features)
    if samples > 1 or resample:
        return particles.nats, particles.terms
    return total_nats(particles.terms), particles.terms  # the analytic KL varies less than sampled ratios


def _utterance_scores(segments: Sequence[Segment], nats: Tensor, terms: dict[str, Tensor]) -> list[UtteranceScore]:
    rows = torch.stack([nats, *terms.values()], 1).tolist()  # waits for the device once
    scores = []
    for segment, (total, *of_terms) in zip(segments, rows, strict=True):
        if not math.isfinite(total):
            raise UserError(f"{segment.utterance}: log-likelihood is {total}; the model is broken for this utterance")
        scores.append(UtteranceScore(segment.utterance, segment.frames, total, dict(zip(terms, of_terms, strict=True))))
    return scores


def score_dump(
    model: Model,
    observation: Observation,
    dump: Dump,
    utterances: Sequence[str] | None = None,
    *,
    max_frames: int | None = None,
    chunk_frames: int = DEFAULT_CHUNK_FRAMES,
    seed: int = 0,
    samples: int = 1,
    resample: bool = False,
) -> Iterator[UtteranceScore]:
    """Scores of the utterances of a dump (all by default), longest first, batch by batch.

    A batch has at most `max_frames` frames (see `most_frames`); longer utterances are read in chunks. Results do not
    depend on these limits. `samples` multiply the frames of a batch; with `resample`, only those of a step.
    """
    most = most_frames(observation, max_frames, model)
    rows = max(1, most // (samples * model.hop)) if resample else most
    most = most if resample else max(1, most // samples)
    chunk_frames = min(chunk_frames, most)
    frames = {u: dump.records[u].frames for u in (dump.records if utterances is None else utterances)}
    batches = consecutive_batches(frames, most)
    while batches and batches[0][0].frames > most:
        (segment,) = batches.pop(0)
        with torch.no_grad():
            parts = utterance_parts(model, observation, dump, segment, whole_hops(model, chunk_frames))
            scored = _score_parts(model, observation, parts, [(seed, "score", segment.utterance, 0)], samples, resample)
        yield from _utterance_scores([segment], *scored)
    batches = [batch[i : i + rows] for batch in batches for i in range(0, len(batch), rows)]
    for batch in load_batches(dump, batches):
        yield from score_batch(model, observation, batch, chunk_frames, seed, samples, resample)
