"""Bits back: coding with latent variable models (Townsend et al. 2019, arXiv:1901.04866).

    encoder     pop z under q(z | x), push x under p(x | z), push z under p(z)
    decoder     pop z, pop x, push z under q: net, -log p(x | z) - log p(z) + log q(z | x), on average minus the ELBO

Latents are in bins of equal prior mass (`Bins`), where they are plain bits under p and symbols of a table under q. Both
sides must find the same means and deviations, bit for bit, and go through a model by the same steps: by
`LatentModel.follow`, a chunk of one hop after another, with zeros for latents that are not known yet. No result in a
chunk depends on what comes after it, and no row on other rows.

In nearly all models the next prior needs all latents so far, so that nothing can be pushed before all latents of an
utterance have been popped: both sides go forward with all pops, and push backward.

    encoder     t = 1 .. T: pop z_t under q        then t = T .. 1: push x_t, z_t
    decoder     t = 1 .. T: pop z_t, x_t           then t = T .. 1: push z_t under q

All utterances of a file are one chain. The first to be encoded, the shortest, pop initial bits that say nothing and
stay in the file; the others, what those before them pushed.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from speechlvm.compression.container import Entry, Header, pcm_crc
from speechlvm.compression.rans import LEAST_HEAD, Stacks
from speechlvm.compression.source import Coded, Source, pad
from speechlvm.compression.tables import MOST_LATENT_BITS, PRECISION, Bins, Table, cost_bits, mixture_table
from speechlvm.distributions.latent import DiagonalGaussian, kl
from speechlvm.distributions.noise import Noise
from speechlvm.experiment.trained import Experiment
from speechlvm.models.bound import slice_features
from speechlvm.utils.errors import UserError

LANES = 4
"""Of the encoder, if not set otherwise; utterances side by side all pop before one of them pushes."""

STACKS = 64
"""Symbols that are coded at once. Part of the format."""

PROBED_UTTERANCES = 16
"""Of which the KL of each dimension is measured."""

FINENESS_BITS = 5.0
"""By how many bits bins are finer than the KL of their dimension says, from 1 bit on.

Below that, fewer do. For conjugate Gaussians a dimension then costs 0.0005 nats more than its KL, at most 0.01."""

_SIZE = struct.Struct("<I")


def parse(stream: bytes) -> _Chain:
    """The chain of a stream.

    Raises:
        ValueError: a stream that no chain can give.
    """
    return _Chain.of_bytes(stream)


def needed(header: Header, entries: list[Entry], entry: Entry) -> list[Entry]:
    """What has to be decoded for an utterance: all before it, and those beside it."""
    return entries[: (entries.index(entry) // header.lanes + 1) * header.lanes]


def latent_bits(experiment: Experiment, source: Source) -> dict[str, list[int]]:
    """Bits of the bins of each level's dimensions: the root mean square of their KL in some utterances, and more."""
    model, names = experiment.model, source.longest_first
    sums, steps = dict.fromkeys(model.latent_sizes, 0.0), dict.fromkeys(model.latent_sizes, 0)
    for name in names[:: max(1, len(names) // PROBED_UTTERANCES)]:
        pcm = torch.from_numpy(pad([source.read(name)], 1, 1))
        lengths = torch.tensor([pcm.shape[1]])
        inputs = experiment.observation.inputs(pcm, lengths)
        noise, features = Noise([(name,)], dtype=inputs.dtype), model.encode(inputs, lengths)
        found = model.infer(inputs, lengths, features=features, noise=noise, decode=False).conditionals
        for level in sums:
            divergence = kl(found.posterior[level], found.prior[level])[0].double()
            sums[level] = sums[level] + divergence.square().sum(0)
            steps[level] += len(divergence)
    bits = {}
    for level, total in sums.items():
        size = (total / steps[level]).sqrt() / math.log(2.0)
        finer = size + FINENESS_BITS + 0.75 * size.log2().clamp(max=0.0)
        bits[level] = finer.nan_to_num(1.0).round().clamp(1, MOST_LATENT_BITS).int().tolist()
    return bits


def encode(experiment: Experiment, source: Source, header: Header, advance: Callable[[int], object]) -> list[Coded]:
    """The utterances, longest first. The first has the stream, and of those side by side the first what all cost.

    Raises:
        UserError: the model is broken for one.
    """
    initial = _InitialBits()
    coded, chain, utterances = [], _Chain(initial.stacks()), source.longest_first
    for first in reversed(range(0, len(utterances), header.lanes)):
        names = utterances[first : first + header.lanes]
        rows = [source.read(name) for name in names]
        group = _Group(experiment, header, [len(pcm) for pcm in rows], advance)
        model_bits, table_bits = group.encode(chain, rows)
        if not math.isfinite(model_bits):
            raise UserError(f"{', '.join(names)}: bound is {-model_bits} bits; the model is broken for one of these")
        of_group = [Coded(len(pcm), pcm_crc(pcm), b"", 0.0, 0.0) for pcm in rows]
        of_group[0] = replace(of_group[0], model_bits=model_bits, table_bits=table_bits)
        coded = of_group + coded
    coded[0] = replace(coded[0], stream=chain.to_bytes(), initial_bits=initial.bits)
    return coded


def decode(
    experiment: Experiment,
    header: Header,
    entries: Sequence[Entry],
    read: Callable[[Entry], bytes],
    advance: Callable[[int], object],
) -> Iterator[tuple[Entry, np.ndarray]]:
    """PCM of the utterances of `needed`; arguments as in `autoregressive.decode`."""
    chain = parse(read(entries[0]))
    for first in range(0, len(entries), header.lanes):
        beside = entries[first : first + header.lanes]
        pcm = _Group(experiment, header, [entry.frames for entry in beside], advance).decode(chain)
        yield from ((entry, row[: entry.frames]) for entry, row in zip(beside, pcm, strict=False))


class _InitialBits:
    """What is popped where nothing has been pushed; it looks uniform, and is the same in all files.

    Attributes:
        bits: taken so far, with what heads are at least.
    """

    def __init__(self) -> None:
        self._generator = np.random.Generator(np.random.Philox(0))
        self.bits = 0

    def stacks(self) -> Stacks:
        """Stacks of nothing else."""
        self.bits += 32 * STACKS
        heads = np.uint64(LEAST_HEAD) + self._words(np.arange(STACKS))
        return Stacks(heads, [np.empty(0, np.uint32)] * STACKS, self._words)

    def _words(self, stacks: np.ndarray) -> np.ndarray:
        self.bits += 32 * len(stacks)
        return self._generator.integers(0, 1 << 32, len(stacks), dtype=np.uint64)


class _Chain:
    """Stacks as one: consecutive symbols lie on consecutive stacks, so that many are coded at once."""

    def __init__(self, stacks: Stacks) -> None:
        self._stacks = stacks

    @staticmethod
    def of_bytes(stream: bytes) -> _Chain:
        """Inverse of `to_bytes`.

        Raises:
            ValueError: a stream that `to_bytes` cannot give.
        """
        parts, place = [], 0
        for _ in range(STACKS):
            size = int.from_bytes(stream[place : place + _SIZE.size], "little")
            place += _SIZE.size
            parts.append(stream[place : place + size])
            place += size
        if place != len(stream):
            raise ValueError(f"{len(stream)} bytes; its stacks have {place}")
        return _Chain(Stacks.of_bytes(parts))

    def to_bytes(self) -> bytes:
        """All stacks, each behind its size."""
        parts = [self._stacks.to_bytes(stack) for stack in range(STACKS)]
        return b"".join(_SIZE.pack(len(part)) + part for part in parts)

    def push(self, start: np.ndarray, frequency: np.ndarray, precision: np.ndarray) -> None:
        """Push symbols, all arrays (n,), so that `pop` gives them."""
        for rows in reversed(_rounds(len(start))):
            self._stacks.push(np.arange(len(start[rows])), start[rows], frequency[rows], precision[rows])

    def pop(self, table: Callable[[slice], Table], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pop symbols, of each slice by its table: symbols, start and frequency (count,)."""
        parts = []
        for rows in _rounds(count):
            stacks, of_rows = np.arange(rows.stop - rows.start), table(rows)
            symbols = of_rows.find(self._stacks.peek(stacks, PRECISION))
            parts.append((symbols, *of_rows.interval(symbols)))
            self._stacks.pop(stacks, *parts[-1][1:], PRECISION)
        return tuple(map(np.concatenate, zip(*parts, strict=True)))

    def pop_bits(self, bits: np.ndarray) -> np.ndarray:
        """Pop numbers (n,) of so many bits (n,) each."""
        parts = []
        for rows in _rounds(len(bits)):
            stacks = np.arange(rows.stop - rows.start)
            parts.append(self._stacks.peek(stacks, bits[rows]))
            self._stacks.pop(stacks, parts[-1], np.ones_like(parts[-1]), bits[rows])
        return np.concatenate(parts).astype(np.int64)


def _rounds(count: int) -> list[slice]:
    return [slice(first, min(first + STACKS, count)) for first in range(0, count, STACKS)]


class _Group:
    """Utterances side by side, chunk by chunk.

    Args:
        experiment, header: of the file.
        lengths: frames of each.
        advance: is called with numbers of frames that are done.
    """

    def __init__(
        self, experiment: Experiment, header: Header, lengths: Sequence[int], advance: Callable[[int], object]
    ) -> None:
        self._model, self._observation, self._advance = experiment.model, experiment.observation, advance
        self._dtype = next(experiment.model.parameters()).dtype
        self._lanes = header.lanes
        self._lengths = torch.zeros(header.lanes, dtype=torch.int64)
        self._lengths[: len(lengths)] = torch.tensor(lengths)
        self._edges = experiment.observation.edges.astype(np.float64)
        self._bins = {level: Bins(np.array(header.latent_bits[level])) for level in self._model.latent_sizes}
        self._chunks = -(-max(lengths) // self._model.hop)
        levels = list(self._model.latent_hops.items())
        self._latents = [  # of a chunk, in the order in which they depend on each other
            (level, step)
            for level, hop in (reversed(levels) if self._model.top_down else levels)
            for step in range(self._model.hop // hop)
        ]

    @torch.no_grad()
    def encode(self, chain: _Chain, rows: Sequence[np.ndarray]) -> tuple[float, float]:
        """Push the utterances; returns the bits of their bound, and of the same by the tables."""
        pcm = torch.from_numpy(pad(rows, self._lanes, self._model.hop))
        inputs, features, state = *self._encoded(pcm), None
        later, model_bits, table_bits = [], 0.0, 0.0
        for chunk in range(self._chunks):
            left, part = self._left(chunk), self._part(inputs, chunk)
            evidence, z = slice_features(features, *self._span(chunk)), self._unknown()
            for level, step, lanes in self._steps(left):
                found = self._model.follow(part, left, z, features=evidence, state=state, decode=False).conditionals
                p, q = (_select(factor[level], lanes, step) for factor in (found.prior, found.posterior))
                model_bits += float(kl(q, p).sum()) / math.log(2.0)
                table = self._posterior_table(level, q, p)
                k, _, frequency = chain.pop(table, p.mean.numel())
                bits = np.tile(self._bins[level].bits, len(lanes))
                later.append((k.astype(np.uint64), np.ones(len(k), np.uint64), bits))
                table_bits += float(bits.sum()) - cost_bits(frequency)
                z[level][lanes, step] = self._values(level, k, p)
            found = self._model.follow(part, left, z, features=evidence, state=state)
            state, real = found.state, self._real(left)
            parameters = found.conditionals.parameters[real]
            targets = self._observation.target(pcm[:, slice(*self._span(chunk))])[real]
            model_bits -= float(self._model.distribution.log_prob(parameters, targets).double().sum()) / math.log(2.0)
            table = mixture_table(parameters.double().numpy(), self._edges)
            start, frequency = table.interval(targets[:, 0].numpy())
            later.append((start, frequency, np.full(len(start), PRECISION)))
            table_bits += cost_bits(frequency)
            self._advance(len(start))
        if math.isfinite(model_bits):
            for symbols in reversed(later):
                chain.push(*symbols)
        return model_bits, table_bits

    @torch.no_grad()
    def decode(self, chain: _Chain) -> np.ndarray:
        """Pop the utterances: (lanes, T) int16."""
        pcm = torch.zeros(self._lanes, self._chunks * self._model.hop, dtype=torch.int16)
        latents, popped, state = [], [], None
        silence = torch.zeros(self._lanes, self._model.hop, self._model.channels, dtype=self._dtype)
        for chunk in range(self._chunks):
            left, z = self._left(chunk), self._unknown()
            for level, step, lanes in self._steps(left):
                found = self._model.follow(silence, left, z, state=state, decode=False).conditionals
                k = chain.pop_bits(np.tile(self._bins[level].bits, len(lanes)))
                z[level][lanes, step] = self._values(level, k, _select(found.prior[level], lanes, step))
                popped.append(k)
            latents.append(z)
            found, real = self._model.follow(silence, left, z, state=state), self._real(left)
            parameters = found.conditionals.parameters[real].double().numpy()
            codes, *_ = chain.pop(lambda rows, p=parameters: mixture_table(p[rows], self._edges), len(parameters))
            here = pcm[:, slice(*self._span(chunk))]
            here[real] = self._observation.decode(torch.from_numpy(codes).unsqueeze(-1))
            part = self._observation.inputs(here.clone(), left).to(self._dtype)
            state = self._model.follow(part, left, z, state=state).state
            self._advance(len(codes))
        self._give_back(chain, pcm, latents, popped)
        return pcm.numpy()

    def _give_back(
        self, chain: _Chain, pcm: Tensor, latents: list[dict[str, Tensor]], popped: list[np.ndarray]
    ) -> None:
        """Push the latents under their posteriors."""
        inputs, features, state = *self._encoded(pcm), None
        later, numbers = [], iter(popped)
        for chunk, z in enumerate(latents):
            left, part = self._left(chunk), self._part(inputs, chunk)
            evidence = slice_features(features, *self._span(chunk))
            found = self._model.follow(part, left, z, features=evidence, state=state)
            state = found.state
            for level, step, lanes in self._steps(left):
                factors = found.conditionals.posterior, found.conditionals.prior
                table = self._posterior_table(level, *(_select(factor[level], lanes, step) for factor in factors))
                k = next(numbers)
                intervals = [table(rows).interval(k[rows]) for rows in _rounds(len(k))]
                later.append((*map(np.concatenate, zip(*intervals, strict=True)), np.full(len(k), PRECISION)))
        for symbols in reversed(later):
            chain.push(*symbols)

    def _encoded(self, pcm: Tensor) -> tuple[Tensor, dict]:
        """Inputs and features of the whole utterances."""
        inputs = self._observation.inputs(pcm, self._lengths).to(self._dtype)
        return inputs, self._model.encode(inputs, self._lengths)

    def _span(self, chunk: int) -> tuple[int, int]:
        return chunk * self._model.hop, (chunk + 1) * self._model.hop

    def _left(self, chunk: int) -> Tensor:
        """Frames of each lane from the chunk on."""
        return self._lengths - chunk * self._model.hop

    def _part(self, inputs: Tensor, chunk: int) -> Tensor:
        """A chunk of the inputs, in memory of its own: products may depend on where their operands lie."""
        return inputs[:, slice(*self._span(chunk))].clone(memory_format=torch.contiguous_format)

    def _unknown(self) -> dict[str, Tensor]:
        hops, sizes = self._model.latent_hops, self._model.latent_sizes
        return {
            level: torch.zeros(self._lanes, self._model.hop // hops[level], sizes[level], dtype=self._dtype)
            for level in sizes
        }

    def _steps(self, left: Tensor) -> Iterator[tuple[str, int, Tensor]]:
        """Latents of a chunk in order: level, step, and the lanes in which it covers real frames."""
        for level, step in self._latents:
            lanes = (left > step * self._model.latent_hops[level]).nonzero()[:, 0]
            if len(lanes):
                yield level, step, lanes

    def _real(self, left: Tensor) -> Tensor:
        """(lanes, hop) frames of the chunk that are real."""
        return torch.arange(self._model.hop) < left.unsqueeze(1)

    def _posterior_table(self, level: str, q: DiagonalGaussian, p: DiagonalGaussian) -> Callable[[slice], Table]:
        """Of latents (lanes, D) in a row."""
        of_q, of_p = ((g.mean.flatten().numpy(), g.std.flatten().numpy()) for g in (q, p))
        dimension = np.tile(np.arange(q.mean.shape[1]), len(q.mean))

        def table(rows: slice) -> Table:
            (q_mean, q_std), (p_mean, p_std) = of_q, of_p
            some = (q_mean[rows], q_std[rows]), (p_mean[rows], p_std[rows])
            return self._bins[level].table(*some, dimension[rows])

        return table

    def _values(self, level: str, k: np.ndarray, p: DiagonalGaussian) -> Tensor:
        """Latents (lanes, D) of bins in a row."""
        centres = self._bins[level].centres(k.reshape(p.mean.shape), p.mean.numpy(), p.std.numpy())
        return torch.from_numpy(centres).to(self._dtype)


def _select(factor: DiagonalGaussian, lanes: Tensor, step: int) -> DiagonalGaussian:
    """(lanes, D) float64 of a step."""
    return DiagonalGaussian(factor.mean[lanes, step].double(), factor.std[lanes, step].double())
