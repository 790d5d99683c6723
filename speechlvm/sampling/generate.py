"""What a trained model makes: prior samples, continuations of a real prefix, reconstructions through latents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from speechlvm.experiment import Experiment
from speechlvm.models.base import LatentModel, slice_features
from speechlvm.noise import Noise


@dataclass(frozen=True)
class Generated:
    """One generated sequence.

    Attributes:
        name: file stem.
        data: (T,) int16 of audio, (T, C) float32 of vectors, as the dump has them.
        log_likelihood_nats: of the generated frames, collected while they were drawn; None for reconstructions.
        marks: frames at which something changes (where a continuation begins).
    """

    name: str
    data: np.ndarray
    log_likelihood_nats: float | None = None
    marks: tuple[int, ...] = ()


def _noise(experiment: Experiment, keys: list[tuple]) -> Noise:
    reference = next(experiment.model.parameters())
    return Noise(keys, reference.device, reference.dtype)


def prior_samples(experiment: Experiment, count: int, frames: int, seed: int) -> list[Generated]:
    """`count` sequences from the prior, generated side by side."""
    noise = _noise(experiment, [(seed, "prior", row) for row in range(count)])
    with torch.no_grad():
        samples = experiment.model.sample(frames, noise, experiment.observation.inputs_of)
    data = experiment.observation.decode(samples.target).cpu().numpy()
    totals = samples.log_likelihood.double().sum(1).tolist()
    return [Generated(f"prior_{row}", data[row], totals[row]) for row in range(count)]


def continuations(experiment: Experiment, prefixes: dict[str, np.ndarray], frames: int, seed: int) -> list[Generated]:
    """Each prefix (all of one length, cut to the model's hop) followed by `frames` generated frames."""
    model, observation = experiment.model, experiment.observation
    names = sorted(prefixes)
    length = len(prefixes[names[0]]) // model.hop * model.hop
    if length == 0:
        return []
    noise = _noise(experiment, [(seed, "continuation", name) for name in names])
    data = torch.from_numpy(np.stack([prefixes[name][:length] for name in names])).to(noise.device)
    lengths = torch.full((len(names),), length, device=noise.device)
    with torch.no_grad():
        inputs = observation.inputs(data, lengths).to(noise.dtype)
        features = slice_features(model.encode(inputs, lengths), 0, length)
        _, state = model(inputs, observation.target(data), lengths, features=features, noise=noise)
        samples = model.sample(frames, noise, observation.inputs_of, state)
    generated = observation.decode(samples.target).cpu()
    whole = torch.cat([data.cpu(), generated], 1).numpy()
    totals = samples.log_likelihood.double().sum(1).tolist()
    return [Generated(f"continuation_{name}", whole[row], totals[row], (length,)) for row, name in enumerate(names)]


def reconstructions(experiment: Experiment, originals: dict[str, np.ndarray], seed: int) -> list[Generated]:
    """Each original, and the output distribution's mode given latents from the posterior. Empty without latents."""
    model, observation = experiment.model, experiment.observation
    if not isinstance(model, LatentModel):
        return []
    pairs = []
    for name in sorted(originals):
        noise = _noise(experiment, [(seed, "reconstruction", name)])
        data = torch.tensor(originals[name])[None].to(noise.device)
        lengths = torch.tensor([data.shape[1]], device=noise.device)
        with torch.no_grad():
            parameters = model.reconstruct(observation.inputs(data, lengths).to(noise.dtype), lengths, noise)
            mode = observation.decode(model.distribution.mode(parameters))
        pairs.append(Generated(f"original_{name}", originals[name]))
        pairs.append(Generated(f"reconstruction_{name}", mode[0].cpu().numpy()))
    return pairs
