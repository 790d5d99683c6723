"""Generation with a trained model: samples, continuations and reconstructions, and variations of levels of latents.

Everything is keyed by a seed. Sequences that differ only in a few latents or in the temperature use the same noise.
As many as possible are drawn in one batch, since a step of 32 rows takes hardly longer than one of four.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from speechlvm.distributions.noise import Noise
from speechlvm.experiment.trained import Experiment
from speechlvm.models.base import LatentModel
from speechlvm.models.bound import Samples, slice_features

if TYPE_CHECKING:
    from speechlvm.models.adaptive import Adaptive  # imports numba

TEMPERATURES = (0.5, 0.75)
"""Temperatures of further samples; prior samples have temperature 1."""

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of the second utterance in interpolations."""

DESCRIPTIONS = {
    "prior": "Latents and frames drawn from the model.",
    "temperature": (
        "The prior samples with the same noise, but all standard deviations multiplied by the temperature and all "
        "logits divided by it; the prior sample next to them has temperature 1."
    ),
    "resampled": (
        "One level of the latents of a prior sample is redrawn from its prior (given what the model draws before it), "
        "while the other levels are frozen; the frames are redrawn."
    ),
    "frozen": ("One level of the latents of a prior sample is frozen; the other levels and the frames are redrawn."),
    "frames": (
        "All latents of a prior sample are frozen and only the frames are redrawn: the differences are what the "
        "latents do not determine."
    ),
    "continuation": "Real data up to the mark, and what the model draws after it.",
    "reconstruction": (
        "Each original, and the mode of the output given latents drawn from its posterior and, in autoregressive "
        "models, the earlier frames of the original."
    ),
    "resynthesis": (
        "All frames are drawn given latents from the posterior of an original; if a level is named, it is redrawn from "
        "its prior while the others are kept."
    ),
    "interpolation": (
        "All frames are drawn given latents interpolated linearly between those from the posteriors of two utterances, "
        "in every level; the weight is that of the second utterance."
    ),
}


@dataclass(frozen=True)
class Generated:
    """One generated sequence.

    Attributes:
        name: file stem.
        data: (T,) int16 for audio, (T, C) float32 for vectors, as in dumps.
        log_likelihood_nats: log-likelihood of the generated frames, summed while drawing; None for reconstructions.
        marks: frames at which something changes, such as the start of a continuation.
        about: what it shows, where applicable: "level", "temperature", "weight", "utterances", and "reference", the
            name of the sequence to compare it with.
    """

    name: str
    data: np.ndarray
    log_likelihood_nats: float | None = None
    marks: tuple[int, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Title in figures: the name and, for interpolations, the two utterances."""
        between = " to ".join(self.about["utterances"]) if "weight" in self.about else ""
        return f"{self.name}\n{between}" if between else self.name


@dataclass(frozen=True)
class Group:
    """Sequences of one kind, and the figure that shows them.

    Attributes:
        kind: key of `DESCRIPTIONS`.
        made: the sequences.
        page: sequences in the figure, row by row: these, and those to compare them with.
        columns: number of columns of the figure.
        level: level of latents that the figure is about, if it is about one.
    """

    kind: str
    made: Sequence[Generated]
    page: Sequence[Generated]
    columns: int = 4
    level: str = ""

    @property
    def picture(self) -> str:
        """File name of the figure."""
        return f"{self.kind}_{self.level}.png" if self.level else f"{self.kind}.png"


@dataclass(frozen=True)
class _Request:
    """A sequence to draw: name, noise key, latents (T_l, D_l) to keep by level, `Generated.about`."""

    name: str
    key: tuple
    kept: dict[str, Tensor] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0


def _noise(experiment: Experiment, keys: list[tuple]) -> Noise:
    reference = next(experiment.model.parameters())
    return Noise(keys, reference.device, reference.dtype)


def _draw(experiment: Experiment, frames: int, requests: list[_Request]) -> tuple[list[Generated], Samples]:
    """Draw all requested sequences in one batch, from the start."""
    model, noise = experiment.model, _noise(experiment, [request.key for request in requests])
    latents = {}
    for level, size in model.latent_sizes.items():
        anew = torch.full((-(-frames // model.latent_hops[level]), size), torch.nan, device=noise.device)
        latents[level] = torch.stack([request.kept.get(level, anew) for request in requests])
    temperature = torch.tensor([request.temperature for request in requests])
    samples = model.sample(frames, noise, experiment.observation.inputs_of, latents=latents, temperature=temperature)
    data = experiment.observation.decode(samples.target).cpu().numpy()
    totals = samples.log_likelihood.double().sum(1).tolist()
    made = [Generated(asked.name, data[row], totals[row], about=asked.about) for row, asked in enumerate(requests)]
    return made, samples


def prior_groups(experiment: Experiment, count: int, frames: int, seed: int) -> list[Group]:
    """`count` sequences from the prior, the same at other temperatures, and variations of the latents of the first."""
    requests = [_Request(f"prior_{row}", (seed, "prior", row)) for row in range(count)]
    requests += [
        _Request(
            f"temperature_{row}_{t:g}",
            (seed, "prior", row),
            about={"temperature": t, "reference": f"prior_{row}"},
            temperature=t,
        )
        for row in range(count)
        for t in TEMPERATURES
    ]
    made, samples = _draw(experiment, frames, requests)
    prior, tempered = made[:count], made[count:]
    page = []
    for row, item in enumerate(prior):
        page += [*tempered[row * len(TEMPERATURES) : (row + 1) * len(TEMPERATURES)], item]
    groups = [Group("prior", prior, prior), Group("temperature", tempered, page, len(TEMPERATURES) + 1)]
    latents = {level: values[0] for level, values in samples.latents.items()}
    return groups + (_variations(experiment, prior[0], latents, max(1, count - 1), frames, seed) if latents else [])


def _variations(
    experiment: Experiment, base: Generated, latents: dict[str, Tensor], count: int, frames: int, seed: int
) -> list[Group]:
    """`count` variations of each kind that keep some of the `latents` of `base`.

    With two levels, freezing one is resampling the other, so "frozen" needs at least three levels; with one level there
    is only "frames".
    """
    kept = {("frames", ""): list(latents)}
    for level in latents if len(latents) > 1 else ():
        kept["resampled", level] = [other for other in latents if other != level]
    for level in latents if len(latents) > 2 else ():
        kept["frozen", level] = [level]
    requests = [
        _Request(
            "_".join(filter(None, (kind, level, str(row)))),
            (seed, "variation", row),
            {name: latents[name] for name in names},
            {**({"level": level} if level else {}), "reference": base.name},
        )
        for (kind, level), names in kept.items()
        for row in range(1, count + 1)
    ]
    made, _ = _draw(experiment, frames, requests)
    groups = []
    for index, (kind, level) in enumerate(kept):
        items = made[index * count : (index + 1) * count]
        groups.append(Group(kind, items, [base, *items], level=level))
    return groups


def continuations(experiment: Experiment, prefixes: dict[str, np.ndarray], frames: int, seed: int) -> list[Group]:
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
    made = [
        Generated(f"continuation_{name}", whole[row], totals[row], (length,), {"utterances": [name]})
        for row, name in enumerate(names)
    ]
    return [Group("continuation", made, made)]


def adaptive_groups(
    model: Adaptive, prefixes: dict[str, np.ndarray], count: int, frames: int, seed: int
) -> list[Group]:
    """`count` sequences of the adaptive reference from its initial state, and each prefix continued by `frames`."""

    def drawn(name: str, kind: str, key: int | str, prefix: np.ndarray | None = None, **about: Any) -> Generated:
        uniform = Noise([(seed, kind, key)], dtype=torch.float64).uniform("x", 0, frames, 1)[0, :, 0].numpy()
        data, nats = model.sample(uniform, prefix)
        return Generated(name, data, nats, () if prefix is None else (len(prefix),), about)

    prior = [drawn(f"prior_{row}", "prior", row) for row in range(count)]
    groups = [Group("prior", prior, prior)]
    if made := [
        drawn(f"continuation_{name}", "continuation", name, prefix, utterances=[name])
        for name, prefix in sorted(prefixes.items())
        if len(prefix)
    ]:
        groups.append(Group("continuation", made, made))
    return groups


def utterance_groups(experiment: Experiment, originals: dict[str, np.ndarray], seed: int) -> list[Group]:
    """Reconstructions, resyntheses and interpolations of real sequences; empty for models without latents."""
    model = experiment.model
    if not isinstance(model, LatentModel):
        return []
    references = {
        name: Generated(f"original_{name}", data, about={"utterances": [name]})
        for name, data in sorted(originals.items())
    }
    reconstructed = _reconstructions(experiment, list(references.values()), seed)
    groups = [Group("reconstruction", reconstructed, reconstructed)]
    frames = min(len(data) for data in originals.values())
    if frames == 0:
        return groups
    latents = _posterior_latents(experiment, {name: data[:frames] for name, data in originals.items()}, seed)
    anew = ["", *(model.latent_sizes if len(model.latent_sizes) > 1 else ())]
    requests = [
        _Request(
            f"resynthesis{f'-{level}' if level else ''}_{name}",  # the utterance comes last, as it may contain anything
            (seed, "resynthesis", name),
            {other: values for other, values in latents[name].items() if other != level},
            {"utterances": [name], **({"level": level} if level else {}), "reference": f"original_{name}"},
        )
        for name in latents
        for level in anew
    ]
    names = list(latents)
    for number, (first, second) in enumerate(zip(names[::2], names[1::2], strict=False), 1):
        requests += [
            _Request(
                f"interpolation_{number}_{weight:g}",
                (seed, "interpolation", first, second),
                interpolate(latents[first], latents[second], weight),
                {"utterances": [first, second], "weight": weight},
            )
            for weight in WEIGHTS
        ]
    made, _ = _draw(experiment, frames, requests)
    resynthesised, interpolated = made[: len(names) * len(anew)], made[len(names) * len(anew) :]
    page = []
    for row, original in enumerate(references.values()):
        page += [original, *resynthesised[row * len(anew) : (row + 1) * len(anew)]]
    groups.append(Group("resynthesis", resynthesised, page, 1 + len(anew) if len(anew) > 1 else 4))
    return groups + ([Group("interpolation", interpolated, interpolated, len(WEIGHTS))] if interpolated else [])


def interpolate(first: dict[str, Tensor], second: dict[str, Tensor], weight: float) -> dict[str, Tensor]:
    """Latents of every level, interpolated linearly; weights 0 and 1 give the first and the second exactly."""
    return {level: (1 - weight) * first[level] + weight * second[level] for level in first}


def _posterior_latents(
    experiment: Experiment, originals: dict[str, np.ndarray], seed: int
) -> dict[str, dict[str, Tensor]]:
    """Utterance -> level -> (T_l, D_l), drawn from the posteriors of sequences of equal length.

    All use the same noise: the midpoint of two draws is then a draw from a posterior midway between theirs, and not the
    mean of independent draws, whose variance is too small.
    """
    names, observation = sorted(originals), experiment.observation
    noise = _noise(experiment, [(seed, "posterior")] * len(names))
    data = torch.from_numpy(np.stack([originals[name] for name in names])).to(noise.device)
    lengths = torch.full((len(names),), data.shape[1], device=noise.device)
    with torch.no_grad():
        inputs = observation.inputs(data, lengths).to(noise.dtype)
        features = experiment.model.encode(inputs, lengths)
        latents = experiment.model.infer(inputs, lengths, features=features, noise=noise, decode=False).latents
    return {name: {level: values[row] for level, values in latents.items()} for row, name in enumerate(names)}


def _reconstructions(experiment: Experiment, originals: list[Generated], seed: int) -> list[Generated]:
    """Each original, and the mode of the output distribution given latents from the posterior."""
    model, observation = experiment.model, experiment.observation
    pairs = []
    for original in originals:
        (name,) = original.about["utterances"]
        noise = _noise(experiment, [(seed, "reconstruction", name)])
        data = torch.tensor(original.data)[None].to(noise.device)
        lengths = torch.tensor([data.shape[1]], device=noise.device)
        with torch.no_grad():
            parameters = model.reconstruct(observation.inputs(data, lengths).to(noise.dtype), lengths, noise)
            mode = observation.decode(model.distribution.mode(parameters))
        about = {"utterances": [name], "reference": original.name}
        pairs += [original, Generated(f"reconstruction_{name}", mode[0].cpu().numpy(), about=about)]
    return pairs
