"""Coding with autoregressive models: sampling in which a stream chooses the frames.

Encoder and decoder walk through the same steps of `Model.sample`, in the same number of rows ("lanes", one utterance
each), and evaluate the same tables, so that all their bits agree; rows of ended utterances go on as dummies. The
encoder notes each frame's interval on its way and pushes them last to first, which the decoder pops first to last. An
utterance has a stream of its own, and can be decoded alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from speechlvm.compression.container import Entry, Header, pcm_crc
from speechlvm.compression.rans import Stacks
from speechlvm.compression.source import Coded, Source, pad
from speechlvm.compression.tables import PRECISION, cost_bits, frame_table
from speechlvm.distributions.noise import Noise
from speechlvm.experiment.trained import Experiment
from speechlvm.models.bound import Samples
from speechlvm.utils.errors import UserError

LANES = 32
"""Of the encoder, if not set otherwise."""

BLOCK_STEPS = 1 << 16
"""Steps of the model between which its state is handed on; bounds memory. Part of the format."""

MOST_FRAMES_AT_ONCE = 1 << 26
"""Of all lanes together; bounds memory."""


def encode(experiment: Experiment, source: Source, header: Header, advance: Callable[[int], object]) -> Iterator[Coded]:
    """The utterances longest first.

    Raises:
        UserError: the model is broken for one.
    """
    utterances = source.longest_first
    for batch in _batches([source.frames[utterance] for utterance in utterances], header.lanes):
        rows = [source.read(utterance) for utterance in utterances[batch]]
        encoder = _Encoder(experiment, rows, header.lanes, advance)
        nats = np.zeros(len(rows))
        for first, samples in _walk(experiment, max(map(len, rows)), header.lanes, encoder):
            for row, pcm in enumerate(rows):
                nats[row] += float(samples.log_likelihood[row, : max(0, len(pcm) - first)].double().sum())
            for utterance, value in zip(utterances[batch], nats, strict=True):
                if not math.isfinite(value):
                    raise UserError(f"{utterance}: log-likelihood is {value}; the model is broken for this utterance")
        stacks = encoder.pushed()
        for row, pcm in enumerate(rows):
            table_bits = cost_bits(encoder.frequency[row, : len(pcm)])
            yield Coded(len(pcm), pcm_crc(pcm), stacks.to_bytes(row), -nats[row] / math.log(2.0), table_bits)


def decode(
    experiment: Experiment,
    header: Header,
    entries: Sequence[Entry],
    read: Callable[[Entry], bytes],
    advance: Callable[[int], object],
) -> Iterator[tuple[Entry, np.ndarray]]:
    """PCM of utterances.

    Args:
        experiment: that they were encoded with.
        header: of the file.
        entries: of these utterances, any of the file.
        read: their streams; where it fails, the utterances before still come.
        advance: is called with numbers of frames that are done.
    """
    for batch in _batches([entry.frames for entry in entries], header.lanes):
        streams, failure = [], None
        for entry in entries[batch]:
            try:
                streams.append(read(entry))
            except UserError as error:
                failure = error
                break
        there = entries[batch][: len(streams)]
        if there:
            frames = [entry.frames for entry in there]
            decoder = _Decoder(experiment, Stacks.of_bytes(streams), frames, header.lanes, advance)
            blocks = [np.zeros((header.lanes, 0), np.int16)]
            for _, samples in _walk(experiment, max(frames), header.lanes, decoder):
                blocks.append(experiment.observation.decode(samples.target).numpy())
            pcm = np.concatenate(blocks, 1)
            yield from ((entry, row[: entry.frames]) for entry, row in zip(there, pcm, strict=False))
        if failure:
            raise failure


def _batches(frames: Sequence[int], lanes: int) -> Iterator[slice]:
    """Consecutive utterances, as many as there are lanes, but fewer long ones."""
    first = 0
    for last in range(1, len(frames) + 1):
        full = last == len(frames) or last - first == lanes
        if full or max(frames[first : last + 1]) * (last + 1 - first) > MOST_FRAMES_AT_ONCE:
            yield slice(first, last)
            first = last


def _walk(
    experiment: Experiment, frames: int, lanes: int, choose: Callable[[Tensor], Tensor]
) -> Iterator[tuple[int, Samples]]:
    """First frame and samples of each block, as `choose` has them."""
    model, state = experiment.model, None
    noise = Noise([()] * lanes, dtype=next(model.parameters()).dtype)  # nothing is drawn from it
    block = BLOCK_STEPS * model.stack
    for first in range(0, frames, block):
        count = min(block, frames - first)
        samples = model.sample(count, noise, experiment.observation.inputs_of, state, choose=choose)
        state = samples.state
        yield first, samples


class _Coder:
    """What encoder and decoder share: utterances of some lengths in the first lanes, and the position in them."""

    def __init__(self, experiment: Experiment, lengths: Sequence[int], advance: Callable[[int], object]) -> None:
        self._observation, self._advance = experiment.observation, advance
        self._distribution = experiment.model.distribution
        self._lengths = np.array(lengths)
        self._edges = experiment.observation.edges.astype(np.float64)
        self._position = 0

    def __call__(self, parameters: Tensor) -> Tensor:
        """Targets (lanes, n, 1) of the next n frames from their parameters (lanes, n, P), see `Model.sample`."""
        targets = self._code(parameters.double().numpy())
        self._advance(int((self._lengths - self._position).clip(0, parameters.shape[1]).sum()))
        self._position += parameters.shape[1]
        return targets

    def _code(self, parameters: np.ndarray) -> Tensor:
        raise NotImplementedError


class _Encoder(_Coder):
    """Chooses the frames that are there, and notes their intervals.

    Attributes:
        start, frequency: (utterances, T) uint32.
    """

    def __init__(
        self, experiment: Experiment, rows: list[np.ndarray], lanes: int, advance: Callable[[int], object]
    ) -> None:
        super().__init__(experiment, [len(pcm) for pcm in rows], advance)
        self._pcm = pad(rows, lanes, experiment.model.stack)
        self.start, self.frequency = np.zeros((2, len(rows), self._pcm.shape[1]), np.uint32)

    def _code(self, parameters: np.ndarray) -> Tensor:
        rows, columns = len(self.start), slice(self._position, self._position + parameters.shape[1])
        targets = self._observation.target(torch.from_numpy(self._pcm[:, columns]))
        flat = parameters[:rows].reshape(-1, parameters.shape[-1])
        table = frame_table(self._distribution, flat, self._edges)
        intervals = table.interval(targets[:rows].reshape(-1).numpy())
        self.start[:, columns], self.frequency[:, columns] = (numbers.reshape(rows, -1) for numbers in intervals)
        return targets

    def pushed(self) -> Stacks:
        """A stack for each utterance, its first frame on top."""
        stacks = Stacks.empty(len(self._lengths))
        for t in reversed(range(self._lengths.max())):
            rows = np.flatnonzero(self._lengths > t)
            stacks.push(rows, self.start[rows, t], self.frequency[rows, t].astype(np.uint64), PRECISION)
        return stacks


class _Decoder(_Coder):
    """Chooses the frames that are on stacks, and silence behind their ends."""

    def __init__(
        self,
        experiment: Experiment,
        stacks: Stacks,
        lengths: Sequence[int],
        lanes: int,
        advance: Callable[[int], object],
    ) -> None:
        super().__init__(experiment, lengths, advance)
        self._stacks = stacks
        self._silence = self._observation.target(torch.zeros(lanes, 1, dtype=torch.int16))

    def _code(self, parameters: np.ndarray) -> Tensor:
        targets = self._silence.repeat(1, parameters.shape[1], 1)
        for i in range(parameters.shape[1]):
            rows = np.flatnonzero(self._lengths > self._position + i)
            if not len(rows):
                break
            table = frame_table(self._distribution, parameters[rows, i], self._edges)
            symbols = table.find(self._stacks.peek(rows, PRECISION))
            self._stacks.pop(rows, *table.interval(symbols), PRECISION)
            targets[rows, i, 0] = torch.from_numpy(symbols)
        return targets
