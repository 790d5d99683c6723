"""Scoring: every utterance once, whole, in exact chunks, with noise keyed by utterance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from speechlvm.accounting import UtteranceScore, row_terms
from speechlvm.data.dataset import Batch, consecutive_batches, load_batches
from speechlvm.data.dump import Dump, PCMDump
from speechlvm.errors import UserError
from speechlvm.models.base import Model, slice_features
from speechlvm.noise import Noise
from speechlvm.observation import Observation

AUDIO_BATCH_FRAMES = 512_000
VECTOR_BATCH_FRAMES = 64_000  # networks for vectors are as wide, and take a step for each frame or few
DEFAULT_CHUNK_FRAMES = 65_536


def score_batch(
    model: Model,
    observation: Observation,
    batch: Batch,
    chunk_frames: int,
    seed: int = 0,
    samples: int = 1,
) -> list[UtteranceScore]:
    """Scores of the whole utterances of a batch.

    Args:
        model: in evaluation mode.
        observation: on the model's device.
        batch: whole utterances.
        chunk_frames: memory bound; rounded up to a multiple of the model's hop. No number depends on it.
        seed: of the latents' noise.
        samples: K > 1 gives the importance-weighted bound log mean_k p(x, z_k) / q(z_k | x).

    Raises:
        UserError: a log-likelihood is not finite (the utterance is named).
    """
    reference = next(model.parameters())
    data, lengths = batch.data.to(reference.device), batch.lengths.to(reference.device)
    with torch.no_grad():
        inputs = observation.inputs(data, lengths).to(reference.dtype)
        target = _as(observation.target(data), reference)
        noise = Noise(batch.noise_keys(seed, "score"), reference.device, reference.dtype)
        features = model.encode(inputs, lengths)
        totals = _score_chunks(model, inputs, target, lengths, features, noise, samples, chunk_frames)
    return [_utterance_score(batch, row, totals, samples) for row in range(len(batch.segments))]


def _as(target: Tensor, reference: Tensor) -> Tensor:
    return target.to(reference.dtype) if target.is_floating_point() else target


def _score_chunks(model, inputs, target, lengths, features, noise, samples, chunk_frames) -> dict[str, Tensor]:
    if samples > 1:
        inputs, target, lengths = (x.repeat_interleave(samples, 0) for x in (inputs, target, lengths))
        features = {name: series.repeat(samples) for name, series in features.items()}
        noise = noise.repeat(samples)
    chunk = max(1, math.ceil(chunk_frames / model.hop)) * model.hop
    totals: dict[str, Tensor] = {}
    state = None
    for start in range(0, inputs.shape[1], chunk):
        stop = min(start + chunk, inputs.shape[1])
        bound, state = model(
            inputs[:, start:stop],
            target[:, start:stop],
            lengths - start,
            features=slice_features(features, start, stop),
            state=state,
            noise=noise,
        )
        for name, value in row_terms(bound).items():
            totals[name] = totals[name] + value if name in totals else value
    return totals


def _utterance_score(batch: Batch, row: int, totals: dict[str, Tensor], samples: int) -> UtteranceScore:
    segment = batch.segments[row]
    rows = slice(row * samples, (row + 1) * samples)
    terms = {name: float(value[rows].mean()) for name, value in totals.items() if not name.startswith("log_ratio_")}
    if samples == 1:
        nats = terms["log_likelihood"] - math.fsum(value for name, value in terms.items() if name.startswith("kl_"))
    else:
        log_weights = totals["log_likelihood"][rows].clone()
        for name, value in totals.items():
            if name.startswith("log_ratio_"):
                log_weights -= value[rows]
        nats = float(torch.logsumexp(log_weights, 0)) - math.log(samples)
    if not math.isfinite(nats):
        raise UserError(f"{segment.utterance}: log-likelihood is {nats}; the model is broken for this utterance")
    return UtteranceScore(segment.utterance, segment.frames, nats, terms)


def score_dump(
    model: Model,
    observation: Observation,
    dump: Dump,
    utterances: Sequence[str] | None = None,
    *,
    batch_frames: int | None = None,
    chunk_frames: int = DEFAULT_CHUNK_FRAMES,
    seed: int = 0,
    samples: int = 1,
) -> Iterator[UtteranceScore]:
    """Scores of the utterances of a dump (all by default), longest first, a batch at a time.

    A batch has at most `batch_frames` frames, by default so many of audio or of vectors as the constants above say.
    """
    if batch_frames is None:
        batch_frames = AUDIO_BATCH_FRAMES if isinstance(dump, PCMDump) else VECTOR_BATCH_FRAMES
    frames = {u: dump.records[u].frames for u in (dump.records if utterances is None else utterances)}
    for batch in load_batches(dump, consecutive_batches(frames, max(1, batch_frames // samples))):
        yield from score_batch(model, observation, batch, chunk_frames, seed, samples)
