"""Checks of the promises that every model makes, for `speechlvm.bin.check_model` and the tests of all systems.

A check runs a model in float64 on a short random signal, and raises `Broken` with what it found. For models with
latents, promises about factors are checked at given latents, and promises about bounds with latents drawn from the
posterior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from speechlvm.data.dumps.dataset import Batch, Segment
from speechlvm.distributions.noise import Noise
from speechlvm.models.base import LatentModel, Model
from speechlvm.models.bound import Series, State, slice_features
from speechlvm.modules.frames import frame_mask
from speechlvm.modules.output import OutputLayer
from speechlvm.observation import AudioObservation
from speechlvm.scoring.score import score_batch

TOLERANCE_NATS = 1e-6
CODES_AT_ONCE = 32


class Broken(Exception):
    """A model breaks a promise; the message says what was found."""


@dataclass(frozen=True)
class Subject:
    """A model under test, and its data.

    Attributes:
        model: model in float64 and in evaluation mode.
        observation: observation of audio.
        data: (4, T) int16, zero beyond the lengths; T is several hops and a part of one.
        lengths: (4,) from T to 1.
        latents: level name -> (1, T_l, D_l), standard normal.
    """

    model: Model
    observation: AudioObservation
    data: Tensor
    lengths: Tensor
    latents: dict[str, Tensor]

    @staticmethod
    def of(model: Model, observation: AudioObservation) -> Subject:
        """A model with a signal of suitable length."""
        hop = model.hop
        frames = max(4, -(-48 // hop)) * hop - hop // 2
        lengths = torch.tensor([frames, frames - hop, hop // 2 + 1, 1])
        walk = np.random.default_rng(0).standard_normal((4, frames)).cumsum(1)
        data = torch.from_numpy((900 * walk).clip(-32768, 32767).astype(np.int16))
        noise = Noise([("latents",)], dtype=torch.float64)
        latents = {level: model.draw_noise(noise, level, 0, frames) for level in model.latent_sizes}
        return Subject(model, observation, data * frame_mask(lengths, frames), lengths, latents)

    @property
    def frames(self) -> int:
        """T."""
        return self.data.shape[1]

    def shown(self, data: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets (B, T, 1) of rows without padding."""
        inputs = self.observation.inputs(data, torch.full((len(data),), data.shape[1]))
        return inputs.double(), self.target(data)

    def target(self, data: Tensor) -> Tensor:
        """Targets (B, T, 1)."""
        target = self.observation.target(data)
        return target.double() if target.is_floating_point() else target

    def factors(self, inputs: Tensor, target: Tensor, latents: dict[str, Tensor]) -> dict[str, Series]:
        """Log-likelihood of every frame and log-prior of every latent, of rows without padding."""
        lengths = torch.full((len(inputs),), inputs.shape[1])
        if isinstance(self.model, LatentModel):
            likelihood, priors = self.model.log_joint(inputs, target, lengths, latents)
            return {"likelihood": likelihood} | {f"prior of {level}": prior for level, prior in priors.items()}
        return {"likelihood": self.model(inputs, target, lengths)[0].log_likelihood}

    def given(self, rows: int, frames: int) -> dict[str, Tensor]:
        """Latents for the first `frames` frames, the same for all rows."""
        hops = self.model.latent_hops
        return {level: z[:, : -(-frames // hops[level])].expand(rows, -1, -1) for level, z in self.latents.items()}

    def nats(self, rows: list[int], chunk: int | None = None, beyond: Tensor | None = None) -> list[float]:
        """Bounds of whole utterances in one batch, as computed in stage 4.

        Args:
            rows: rows of the data.
            chunk: frames per chunk; None: a single chunk.
            beyond: (4, T') samples to use as padding, instead of zeros.
        """
        data = self.data[:, : int(self.lengths[rows].max())]
        if beyond is not None:
            padded = torch.nn.functional.pad(self.data, (0, beyond.shape[1] - self.frames))
            data = torch.where(frame_mask(self.lengths, beyond.shape[1]), padded, beyond)
        segments = tuple(Segment(str(row), 0, int(self.lengths[row])) for row in rows)
        batch = Batch(segments, data[rows], self.lengths[rows])
        return [score.nats for score in score_batch(self.model, self.observation, batch, chunk or data.shape[1])]


def check_members(model: Model) -> None:
    """Require the attributes that `__init__` sets."""
    lacking = [name for name in ("distribution", "channels", "stack", "hop", "head") if not hasattr(model, name)]
    if lacking:
        raise Broken(f"its __init__ does not set {', '.join(lacking)}")
    if not isinstance(model.head, OutputLayer):
        raise Broken(
            f"its head is a {type(model.head).__name__}; expected an OutputLayer (speechlvm/modules/output.py)"
        )


def _compare(what: str, found: Tensor, expected: Tensor, hop: int = 1, remark: str = "") -> None:
    """Require values (B, T') to be equal up to rounding."""
    if found.shape != expected.shape:
        raise Broken(f"{what}: shape {tuple(found.shape)}; expected {tuple(expected.shape)}")
    wrong = ~((found - expected).abs() <= TOLERANCE_NATS)
    if wrong.any():
        row, place = (int(index) for index in wrong.nonzero()[0])
        values = f"{float(found[row, place]):.6f} instead of {float(expected[row, place]):.6f}"
        raise Broken(f"{what} of frame {place * hop} is {values} nats{remark}")


def causality(subject: Subject) -> None:
    """The likelihood of a frame, and the prior of a latent of its step, depend on no input from that frame on."""
    model, frames = subject.model, subject.frames
    wanted = {0, 1, model.stack - 1, model.stack, model.hop, 2 * model.hop + 1, frames // 2, frames - 1}
    firsts = sorted(first for first in wanted if first < frames)
    inputs, target = (values[:1].repeat(1 + len(firsts), 1, 1) for values in subject.shown(subject.data))
    other_inputs, other_target = subject.shown(-3 * (subject.data[:1] // 4) - 1000)
    for row, first in enumerate(firsts, 1):
        inputs[row, first:], target[row, first + 1 :] = other_inputs[0, first:], other_target[0, first + 1 :]
    for name, series in subject.factors(inputs, target, subject.given(len(inputs), frames)).items():
        for row, first in enumerate(firsts, 1):
            before = slice(first // series.hop + 1)
            _compare(
                f"the {name}", series.values[row : row + 1, before], series.values[:1, before], series.hop,
                f" after the inputs from frame {first} on are changed",
            )  # fmt: skip


def padding(subject: Subject) -> None:
    """Frames beyond the length of a row never count, and the rows of a batch do not mix."""
    rows = list(range(len(subject.data)))
    whole = subject.nats(rows)
    for row in rows:
        _same(f"row {row}, {int(subject.lengths[row])} frames, alone", subject.nats([row]), whole[row : row + 1])
    generator = np.random.default_rng(1)
    beyond = generator.integers(-9999, 9999, (len(rows), subject.frames + 2 * subject.model.hop + 3), np.int16)
    _same("with samples in the padding", subject.nats(rows, beyond=torch.from_numpy(beyond)), whole)
    inputs, target = subject.observation.inputs(subject.data, subject.lengths).double(), subject.target(subject.data)
    noise = Noise([("padding", row) for row in rows], dtype=torch.float64)
    bound = subject.model.score(inputs, target, subject.lengths, noise)
    for name, series in {"likelihood": bound.log_likelihood, **bound.kl}.items():
        if not torch.equal(series.mask, frame_mask(subject.lengths, subject.frames, series.hop)):
            raise Broken(f"the mask of {name} is not that of the lengths")
        if series.values[~series.mask].any():
            raise Broken(f"{name} is not 0 beyond the lengths")


def chunking(subject: Subject) -> None:
    """Scoring in chunks that pass on their state gives the same result as at once, and so does encoding in chunks."""
    model, hop = subject.model, subject.model.hop
    rows = list(range(len(subject.data)))
    whole = subject.nats(rows)
    for chunk in (hop, 3 * hop):
        _same(f"in chunks of {chunk} frames", subject.nats(rows, chunk), whole)
    inputs, _ = subject.shown(subject.data[:1])
    features = model.encode(inputs, subject.lengths[:1])
    encoded = model.encode_chunks(lambda start, stop: inputs[:, start:stop], subject.frames, hop)
    for number, of_chunk in enumerate(encoded):
        for name, series in slice_features(features, number * hop, (number + 1) * hop).items():
            if not torch.allclose(of_chunk[name].values, series.values, rtol=1e-9, atol=1e-9):
                raise Broken(f"features {name} of chunk {number}, {hop} frames each, differ from those of the whole")


def _same(what: str, found: list[float], expected: list[float]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        if not abs(ours - theirs) <= TOLERANCE_NATS:
            raise Broken(f"{what}: {ours:.6f} instead of {theirs:.6f} nats")


def masses(subject: Subject) -> None:
    """The probabilities of all codes of a frame sum to one (inputs follow targets); densities are not integrated."""
    if subject.observation.continuous:
        return
    frames = subject.model.hop + 2
    base = subject.target(subject.data[:1, :frames])
    for place in (0, frames - 1):
        total = 0.0
        for codes in torch.arange(len(subject.observation.edges) - 1).split(CODES_AT_ONCE):
            target = base.repeat(len(codes), 1, 1)
            target[:, place, 0] = codes
            inputs = subject.observation.inputs_of(target).double()
            likelihood = subject.factors(inputs, target, subject.given(len(codes), frames))["likelihood"]
            total += float(likelihood.values[:, place].exp().sum())
        if not abs(total - 1) <= TOLERANCE_NATS:
            raise Broken(f"the probabilities of all codes of frame {place} sum to {total:.6f}")


def state(subject: Subject) -> None:
    """Samples after a scored prefix have the likelihoods that scoring gives, and sampling can be interrupted."""
    model, prefix = subject.model, 2 * subject.model.hop
    noise = Noise([("state", row) for row in range(2)], dtype=torch.float64)
    inputs, target = subject.shown(subject.data[:2, :prefix])
    lengths, latents = torch.full((2,), prefix), {}
    if isinstance(model, LatentModel):
        inference = model.infer(inputs, lengths, features=model.encode(inputs, lengths), noise=noise)
        latents, after = inference.latents, inference.state
    else:
        after = model(inputs, target, lengths)[1]
    _check_state(after, prefix)
    more = model.hop + model.stack + 1
    samples = model.sample(more, noise, subject.observation.inputs_of, after)
    joined = torch.cat([target, samples.target], 1)
    latents = {level: torch.cat([z, samples.latents[level]], 1) for level, z in latents.items()}
    factors = subject.factors(subject.observation.inputs_of(joined).double(), joined, latents)
    _compare_samples(factors, samples.log_likelihood, samples.log_prior, prefix)
    first = model.sample(model.hop, noise, subject.observation.inputs_of, after)
    second = model.sample(more - model.hop, noise, subject.observation.inputs_of, first.state)
    if not torch.equal(torch.cat([first.target, second.target], 1), samples.target):
        raise Broken(f"sampling that is interrupted after {model.hop} frames continues differently")


def _check_state(found: State, frames: int) -> None:
    for name, value in found.items():
        if not isinstance(value, Tensor) or value.shape[:1] != (2,):
            raise Broken(f"state '{name}' is not a tensor with one row per row of the batch")
    if "frames" not in found or found["frames"].tolist() != [frames, frames]:
        raise Broken(f"state 'frames' is not the number of frames that were scored, {frames}")


def sampling(subject: Subject) -> None:
    """`sample` reports the likelihoods that scoring gives, both for drawn frames and for chosen ones (compression)."""
    model, frames = subject.model, subject.frames
    noise = Noise([("sampling", row) for row in range(2)], dtype=torch.float64)
    samples = model.sample(frames, noise, subject.observation.inputs_of)
    inputs = subject.observation.inputs_of(samples.target).double()
    factors = subject.factors(inputs, samples.target, samples.latents)
    _compare_samples(factors, samples.log_likelihood, samples.log_prior, 0)
    data = torch.nn.functional.pad(subject.data[:2], (0, model.hop))
    targets, walked = subject.target(data), []

    def choose(parameters: Tensor) -> Tensor:
        first = sum(part.shape[1] for part in walked)
        walked.append(parameters)
        return targets[:, first : first + parameters.shape[1]]

    latents = subject.given(2, frames)
    model.sample(frames, noise, subject.observation.inputs_of, latents=latents, choose=choose)
    inputs, target = subject.shown(data[:, :frames])
    found = model.distribution.log_prob(torch.cat(walked, 1)[:, :frames], target)
    expected = subject.factors(inputs, target, latents)["likelihood"].values
    _compare("with chosen frames, the likelihood", found, expected)


def _compare_samples(
    factors: dict[str, Series], log_likelihood: Tensor, log_prior: dict[str, Tensor], start: int
) -> None:
    """Require that samples report the factors that scoring gives, from frame `start` on."""
    drawn = {"likelihood": log_likelihood} | {f"prior of {level}": values for level, values in log_prior.items()}
    for name, values in drawn.items():
        series = factors[name]
        scored = series.values[:, start // series.hop :]
        remark = f"; frames are counted from {start} on" if start else ""
        _compare(f"the {name} that sampling reports", values, scored, series.hop, remark)


CHECKS: dict[str, Callable[[Subject], None]] = {
    check.__name__: check for check in (causality, padding, chunking, masses, state, sampling)
}


@torch.no_grad()
def shaken(model: Model) -> Model:
    """The model in float64, its weights perturbed in place so that those that start at zero matter, too."""
    generator = torch.Generator().manual_seed(1)
    model = model.double()
    for parameter in model.parameters():
        inputs = parameter[0].numel() if parameter.dim() > 1 else 8
        parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / (2 * inputs**0.5)
    model.initialise_output(0.3 * torch.randn(model.distribution.parameter_size, generator=generator))
    return model.eval().requires_grad_(False)
