"""Extraction of representations with a trained model: posterior statistics of latents, or deterministic states.

Latents: after one `encode`, `samples` paths are drawn from the posterior for each utterance, in one batch and without
decoding. The statistics are

    mean_t = average of posterior means      (source A, 3.2: expected latents by 100 Monte Carlo samples)
    std_t  = sqrt(average variance + variance of the means)      of q(z_t | x), by the law of total variance
    kl_t   = average of KL(q || p), nats per dimension

Hidden states of models without latents: state t depends on the stacks up to t, like latents.

Representations with a hop below `least_hop_frames` are reduced to it: means and variances of adjacent steps are
averaged, KL is summed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from speechlvm.data.dumps.dataset import Batch, consecutive_batches, load_batches
from speechlvm.data.dumps.dump import Dump
from speechlvm.data.dumps.pcm import PCMDump
from speechlvm.distributions.latent import kl
from speechlvm.distributions.noise import Noise
from speechlvm.latents.store import Representation, Values
from speechlvm.models.base import LatentModel, Model
from speechlvm.models.bound import Inference
from speechlvm.observation import Observation
from speechlvm.scoring.score import Part, batch_parts, most_frames, utterance_parts
from speechlvm.utils.errors import ConfigError

AUDIO_LEAST_HOP_FRAMES = 64
"""4 ms at 16 kHz, the hop of the lowest latents and of the mel spectrograms in source A."""

ROWS = 256
"""Maximum batch size in sequences (utterances times samples); samples of one utterance are never divided."""

ROW_STEPS = 65_536
"""Maximum sequences times steps in a chunk; bounds memory without changing results."""


MOST_DRAWN = 10**11
"""Maximum number of random numbers drawn for a set: at s = 1, 100 samples of TIMIT's test set would need 2e12."""


def affordable_samples(model: Model, frames: Collection[int], samples: int) -> int:
    """Number of paths for utterances of these lengths: `samples`, or what `MOST_DRAWN` allows, but at least one."""
    numbers = sum(
        -(-length // hop) * model.latent_sizes[level] for level, hop in model.latent_hops.items() for length in frames
    )
    return max(1, min(samples, MOST_DRAWN // max(1, numbers)))


def least_hop_frames(dump: Dump) -> int:
    """The smallest hop to store for a dump; representations of vectors are not reduced."""
    return AUDIO_LEAST_HOP_FRAMES if isinstance(dump, PCMDump) else 1


def representations(
    model: Model, statistics: Collection[str], least_hop: int, names: Sequence[str] | None = None
) -> list[Representation]:
    """The representations that `extract_dump` yields: a model's latents or, without latents, its hidden states.

    Args:
        model: trained model.
        statistics: statistics of latents; hidden states have only "mean".
        least_hop: smallest hop in frames; finer representations are reduced to it.
        names: names of representations; None: all latents, or the model's default choice of hidden states.

    Raises:
        ConfigError: the model has no representation with one of these names, or none at all.
    """
    sizes = model.latent_sizes if isinstance(model, LatentModel) else model.hidden_sizes
    if not sizes:
        raise ConfigError(
            f"{type(model).__name__} has no hidden states to analyse; give it some (MODELS.md), "
            "or name its configuration in --skip_analysis of run.sh"
        )
    chosen = (tuple(sizes) if isinstance(model, LatentModel) else model.hidden_chosen) if names is None else names
    unknown = [name for name in chosen if name not in sizes]
    if unknown:
        raise ConfigError(f"'{unknown[0]}': the model has no such representation; expected: {', '.join(sizes)}")
    described = []
    for name in sizes:
        if name in chosen:
            hop = model.latent_hops.get(name, model.stack)
            hop *= math.ceil(least_hop / hop)
            latent = isinstance(model, LatentModel)
            kept = tuple(s for s in ("mean", "std", "kl") if s == "mean" or (latent and s in statistics))
            described.append(Representation(name, "latent" if latent else "hidden", hop, hop / 2, sizes[name], kept))
    return described


def extract_dump(
    model: Model,
    observation: Observation,
    dump: Dump,
    utterances: Sequence[str],
    described: Sequence[Representation],
    *,
    samples: int,
    seed: int = 0,
    row_steps: int = ROW_STEPS,
    max_frames: int | None = None,
) -> Iterator[tuple[str, Values]]:
    """The representations of utterances, longest first.

    Args:
        model: model in evaluation mode.
        observation: observation on the device of the model.
        dump: dump of the set.
        utterances: ids of the utterances.
        described: result of `representations`.
        samples: number of paths drawn from the posterior of each utterance.
        seed: seed of the paths.
        row_steps: memory bound; does not change results.
        max_frames: longer utterances are yielded in consecutive parts; default: see `most_frames`.
    """
    frames = {u: dump.records[u].frames for u in utterances}
    most = most_frames(observation, max_frames, model)
    rows = max(1, ROWS // samples) if isinstance(model, LatentModel) else ROWS
    for segments in consecutive_batches(frames, most):
        if segments[0].frames > most:
            (segment,) = segments
            yield from _extract_long(model, observation, dump, segment, described, samples, seed, row_steps, most)
            continue
        for batch in load_batches(dump, [segments[i : i + rows] for i in range(0, len(segments), rows)]):
            yield from extract_batch(model, observation, batch, described, samples, seed, row_steps)


def extract_batch(
    model: Model,
    observation: Observation,
    batch: Batch,
    described: Sequence[Representation],
    samples: int,
    seed: int,
    row_steps: int = ROW_STEPS,
) -> list[tuple[str, Values]]:
    """The representations of the whole utterances of a batch; arguments as in `extract_dump`."""
    chunk = _chunk(model, described, samples, len(batch.segments), row_steps)
    joined = [{r.name: {statistic: [] for statistic in r.statistics} for r in described} for _ in batch.segments]
    with torch.inference_mode():
        parts = batch_parts(model, observation, batch, chunk)
        for values in _values(model, parts, described, batch.noise_keys(seed, "latents"), samples):
            for whole, of_row in zip(joined, values, strict=True):
                for name, statistics in of_row.items():
                    for statistic, array in statistics.items():
                        whole[name][statistic].append(array)
    return [
        (segment.utterance, {n: {s: np.concatenate(a) for s, a in of_name.items()} for n, of_name in whole.items()})
        for segment, whole in zip(batch.segments, joined, strict=True)
    ]


def _extract_long(
    model, observation, dump, segment, described, samples, seed, row_steps, most
) -> Iterator[tuple[str, Values]]:
    """Like `extract_batch`, part by part for one utterance that is never in memory as a whole."""
    chunk = min(_chunk(model, described, samples, 1, row_steps), _chunk(model, described, 1, 1, most // model.stack))
    with torch.inference_mode():
        parts = utterance_parts(model, observation, dump, segment, chunk)
        for (values,) in _values(model, parts, described, [(seed, "latents", segment.utterance, 0)], samples):
            yield segment.utterance, values


def _chunk(model: Model, described: Sequence[Representation], samples: int, rows: int, row_steps: int) -> int:
    """Frames per chunk: at most `row_steps` steps of all paths together, and a multiple of every hop."""
    unit = math.lcm(model.hop, *(r.hop_frames for r in described))
    paths = rows * (samples if isinstance(model, LatentModel) else 1)
    return max(1, row_steps // paths * model.stack // unit) * unit


def _values(
    model: Model, parts: Iterator[Part], described: Sequence[Representation], keys: list[tuple], samples: int
) -> Iterator[list[dict[str, dict[str, np.ndarray]]]]:
    """Yield for each chunk the values to store of each row; none for rows that have ended."""
    if isinstance(model, LatentModel):
        reference = next(model.parameters())
        noise = Noise(keys, reference.device, reference.dtype).repeat(samples)
        chunks_of_steps = _latents(model, parts, noise, samples, described)
    else:
        chunks_of_steps = _hidden_states(model, parts, described)
    for lengths, steps in chunks_of_steps:
        rows = []
        for row, left in enumerate(lengths.tolist()):
            values: dict[str, dict[str, np.ndarray]] = {}
            for r in described if left > 0 else ():
                own = model.latent_hops.get(r.name, model.stack)
                values[r.name] = {
                    statistic: _coarser(tensor[row, : math.ceil(left / own)], r.hop_frames // own, statistic)
                    for statistic, tensor in steps[r.name].items()
                }
            rows.append(values)
        yield rows


def _latents(model, parts, noise, samples, described) -> Iterator[tuple[Tensor, dict[str, dict[str, Tensor]]]]:
    """Yield for each chunk the lengths, and name -> statistic -> (B, steps, D), averaged over paths."""
    state = None
    for part in parts:
        inference = model.infer(
            part.inputs.repeat_interleave(samples, 0),
            part.lengths.repeat_interleave(samples, 0),
            features={name: series.repeat(samples) for name, series in part.features.items()},
            noise=noise,
            state=state,
            decode=False,
        )
        state = inference.state
        yield part.lengths, {r.name: _moments(inference, r, samples) for r in described}


def _moments(inference: Inference, r: Representation, samples: int) -> dict[str, Tensor]:
    prior, posterior = inference.conditionals.prior[r.name], inference.conditionals.posterior[r.name]

    def of_paths(values: Tensor) -> Tensor:
        return values.unflatten(0, (-1, samples))

    means = of_paths(posterior.mean)
    mean = means.mean(1)
    moments = {"mean": mean}
    if "std" in r.statistics:
        spread = (means - mean.unsqueeze(1)).square().mean(1)
        moments["std"] = (of_paths(posterior.std.square()).mean(1) + spread).sqrt()
    if "kl" in r.statistics:
        moments["kl"] = of_paths(kl(posterior, prior)).mean(1)
    return moments


def _hidden_states(model, parts, described) -> Iterator[tuple[Tensor, dict[str, dict[str, Tensor]]]]:
    """Like `_latents`, for hidden states.

    State t of a model predicts stack t, so the first state that has seen stack t is state t + 1. The last state of a
    chunk is therefore the first one of the next chunk; after the last chunk, a stack of zeros is appended, whose values
    have no influence.
    """
    names, state = [r.name for r in described], None
    held: tuple[Tensor, dict[str, Tensor]] | None = None

    def shifted(following: dict[str, Tensor]) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        lengths, values = held
        return lengths, {n: {"mean": torch.cat([v[:, 1:], following[n][:, :1]], 1)} for n, v in values.items()}

    for part in parts:
        missing = -part.inputs.shape[1] % model.stack
        inputs = torch.nn.functional.pad(part.inputs, (0, 0, 0, missing))
        values, state = model.hidden_states(inputs, names, state)
        if held is not None:
            yield shifted(values)
        held = part.lengths, values
    values, _ = model.hidden_states(inputs.new_zeros(len(inputs), model.stack, inputs.shape[2]), names, state)
    yield shifted(values)


def _coarser(values: Tensor, factor: int, statistic: str) -> np.ndarray:
    """Average groups of `factor` steps of (steps, D); the last group may be smaller."""
    if factor > 1:
        groups = values.split(factor)
        if statistic == "kl":
            values = torch.stack([group.sum(0) for group in groups])
        elif statistic == "std":
            values = torch.stack([group.square().mean(0).sqrt() for group in groups])
        else:
            values = torch.stack([group.mean(0) for group in groups])
    return values.float().cpu().numpy()
