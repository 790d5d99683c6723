"""What a trained model makes of utterances: statistics of the posterior over latents, or deterministic states.

Latents: `samples` paths are drawn from the posterior for each utterance, together, after one `encode`; nothing is
decoded. Over them

    mean_t = average of the posteriors' means      (source A, 3.2: expected latents by 100 Monte Carlo samples)
    std_t  = sqrt(average variance + variance of the means)      of q(z_t | x), by the law of total variance
    kl_t   = average of KL(q || p), nats per dimension

Hidden states of models without latents: element t has seen the stacks up to t, as the latents have.

Clocks finer than `least_hop_frames` are made coarser: over adjacent steps means are averaged, variances too, and KL is
summed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from speechlvm.data.dataset import Batch, consecutive_batches, load_batches
from speechlvm.data.dump import Dump, PCMDump
from speechlvm.distributions.latent import kl
from speechlvm.errors import ConfigError
from speechlvm.latents.store import Representation, Values
from speechlvm.models.base import Inference, LatentModel, Model, slice_features
from speechlvm.noise import Noise
from speechlvm.observation import Observation
from speechlvm.scoring.score import AUDIO_BATCH_FRAMES, VECTOR_BATCH_FRAMES

AUDIO_LEAST_HOP_FRAMES = 64
"""4 ms at 16 kHz, the clock of source A's lowest latents and of its mel spectrograms."""

ROWS = 256
"""Most sequences (utterances times samples) side by side; more samples of one utterance are still drawn together."""

ROW_STEPS = 65_536
"""Sequences times steps in a chunk: bounds memory, changes no number."""


def least_hop_frames(dump: Dump) -> int:
    """The finest clock of what is kept: vectors keep their own."""
    return AUDIO_LEAST_HOP_FRAMES if isinstance(dump, PCMDump) else 1


def representations(
    model: Model, statistics: Collection[str], least_hop: int, names: Sequence[str] | None = None
) -> list[Representation]:
    """What `extract_dump` yields of a model: its latents, or else its hidden states.

    Args:
        model: any that was trained.
        statistics: those wanted of latents; hidden states have "mean" alone.
        least_hop: frames of the finest clock that is kept.
        names: those wanted; None: all latents, or the model's own choice of hidden states.

    Raises:
        ConfigError: the model has no representation of a name.
    """
    sizes = model.latent_sizes if isinstance(model, LatentModel) else model.hidden_sizes
    chosen = (tuple(sizes) if isinstance(model, LatentModel) else model.hidden_chosen) if names is None else names
    unknown = [name for name in chosen if name not in sizes]
    if unknown:
        raise ConfigError(f"'{unknown[0]}': the model has no such representation; known are: {', '.join(sizes)}")
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
) -> Iterator[tuple[str, Values]]:
    """The representations of utterances, longest first.

    Args:
        model: in evaluation mode.
        observation: on the model's device.
        dump: with the utterances.
        utterances: names.
        described: from `representations`.
        samples: paths drawn from the posterior of each utterance.
        seed: of the paths.
        row_steps: memory bound; no number depends on it.
    """
    frames = {u: dump.records[u].frames for u in utterances}
    limit = AUDIO_BATCH_FRAMES if isinstance(dump, PCMDump) else VECTOR_BATCH_FRAMES
    rows = max(1, ROWS // samples) if isinstance(model, LatentModel) else ROWS
    for segments in consecutive_batches(frames, limit):
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
    reference = next(model.parameters())
    data, lengths = batch.data.to(reference.device), batch.lengths.to(reference.device)
    latent = isinstance(model, LatentModel)
    rows = len(lengths) * (samples if latent else 1)
    # chunks end where steps of every clock end
    unit = math.lcm(model.hop, *(r.hop_frames for r in described))
    chunk = max(1, row_steps // rows * model.stack // unit) * unit
    with torch.inference_mode():
        inputs = observation.inputs(data, lengths).to(reference.dtype)
        if latent:
            noise = Noise(batch.noise_keys(seed, "latents"), reference.device, reference.dtype)
            parts = _latents(model, inputs, lengths, noise.repeat(samples), samples, described, chunk)
        else:
            parts = _hidden_states(model, inputs, described, chunk)
        joined: dict[str, dict[str, Tensor]] = {r.name: {} for r in described}
        for part in parts:
            for r in described:
                for statistic in r.statistics:
                    joined[r.name].setdefault(statistic, []).append(part[r.name][statistic])
        results = []
        for row, segment in enumerate(batch.segments):
            values: dict[str, dict[str, np.ndarray]] = {}
            for r in described:
                own = model.latent_hops.get(r.name, model.stack)
                steps = math.ceil(segment.frames / own)
                values[r.name] = {
                    statistic: _coarser(torch.cat([p[row] for p in pieces])[:steps], r.hop_frames // own, statistic)
                    for statistic, pieces in joined[r.name].items()
                }
            results.append((segment.utterance, values))
    return results


def _latents(model, inputs, lengths, noise, samples, described, chunk) -> Iterator[dict[str, dict[str, Tensor]]]:
    """Chunk by chunk: name -> statistic -> (B, steps, D), averaged over the paths."""
    features, state = model.encode(inputs, lengths), None
    for start in range(0, inputs.shape[1], chunk):
        stop = min(start + chunk, inputs.shape[1])
        inference = model.infer(
            inputs[:, start:stop].repeat_interleave(samples, 0),
            (lengths - start).repeat_interleave(samples, 0),
            features={n: series.repeat(samples) for n, series in slice_features(features, start, stop).items()},
            noise=noise,
            state=state,
            decode=False,
        )
        state = inference.state
        yield {r.name: _moments(inference, r, samples) for r in described}


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


def _hidden_states(model, inputs, described, chunk) -> Iterator[dict[str, dict[str, Tensor]]]:
    """As `_latents`, of states.

    A model's states are those that predict a stack. Shifted by one they have seen it; the last ones are read off at one
    more stack, whose content they do not depend on.
    """
    names, state = [r.name for r in described], None
    last = -(-inputs.shape[1] // model.stack) * model.stack
    inputs = torch.nn.functional.pad(inputs, (0, 0, 0, last + model.stack - inputs.shape[1]))
    for start in range(0, inputs.shape[1], chunk):
        values, state = model.hidden_states(inputs[:, start : start + chunk], names, state)
        yield {name: {"mean": v if start else v[:, 1:]} for name, v in values.items()}


def _coarser(values: Tensor, factor: int, statistic: str) -> np.ndarray:
    """(steps, D) on a clock that is `factor` times slower; a last step of fewer is averaged over these."""
    if factor > 1:
        groups = values.split(factor)
        if statistic == "kl":
            values = torch.stack([group.sum(0) for group in groups])
        elif statistic == "std":
            values = torch.stack([group.square().mean(0).sqrt() for group in groups])
        else:
            values = torch.stack([group.mean(0) for group in groups])
    return values.float().cpu().numpy()
