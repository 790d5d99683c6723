"""Tasks of probes: the sequence of phones, the sequence of sentencepiece units, the phone at each step.

Each task has references (tokens of each utterance), a network, its loss, a decoder, and error rates over a set: the
number of errors divided by the number of tokens in the references.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchaudio.functional import edit_distance

from speechlvm.data.kaldi.directory import DataDirectory, Interval
from speechlvm.data.kaldi.phones import fold
from speechlvm.latents.labelled import Unsuitable
from speechlvm.latents.probes import SETS
from speechlvm.latents.probes.clock import clock_steps
from speechlvm.latents.probes.networks import LinearClassifier, Recogniser, recogniser_steps
from speechlvm.latents.probes.units import load_units, units_of, words_from

CLASSES = 39
SILENCE = fold("h#", CLASSES)
UNLABELLED = ""  # label of steps outside all segments, or in one that the folding leaves out
BLANK = 0
IGNORED = -1

References = Mapping[str, list[str]]
"""Tokens by utterance."""


class Task(ABC):
    """Labels of three sets, and how a network learns them.

    Attributes:
        name: name in `--tasks`.
        frames: number of frames, by utterance.
        hop: hop of the clock in frames.
        references: references by set, without unlabelled utterances.
        alphabet: tokens of the training set, sorted.
        unlabelled: utterances without labels, by set; they are not in any error rate.
        too_short: utterances with fewer steps than their labels need, by set. They are left out of training, but count
            in the other sets, as errors that no feature can avoid.
        trainable: utterances of the training set to train on, sorted.
    """

    name: str
    metrics: tuple[str, ...]

    def __init__(
        self,
        references: Mapping[str, References],
        utterances: Mapping[str, Sequence[str]],
        frames: Mapping[str, int],
        hop: int,
    ) -> None:
        self.references, self.frames, self.hop = references, frames, hop
        self.unlabelled = {s: [u for u in utterances[s] if u not in references[s]] for s in SETS}
        self.too_short = {s: [u for u in sorted(references[s]) if not self._fits(u, references[s][u])] for s in SETS}
        left_out = set(self.too_short["train"])
        self.trainable = [utterance for utterance in sorted(references["train"]) if utterance not in left_out]
        self.alphabet = sorted({t for u in self.trainable for t in references["train"][u]} - {UNLABELLED})
        self._index = {token: index for index, token in enumerate(self.alphabet)}
        for name, known in (*references.items(), ("train", self.trainable)):
            if not any(token != UNLABELLED for utterance in known for token in references[name][utterance]):
                some = ", ".join(self.too_short[name][:3])
                raise Unsuitable(
                    f"probe '{self.name}': no utterance of the {name} set has labels"
                    + (f" that fit into its steps ({some}, ...: too short)" if some else "; prepare its data again")
                )

    def _fits(self, utterance: str, tokens: Sequence[str]) -> bool:
        return True

    def steps_of(self, utterance: str) -> int:
        """Steps of the clock in an utterance."""
        return clock_steps(self.frames[utterance], self.hop)

    def chance(self) -> dict[str, float]:
        """Metrics of a constant guess, if they are worth showing."""
        return {}

    @abstractmethod
    def network(self, dimensions: int, hidden: int) -> nn.Module:
        """A network: (batch, steps, dimensions) and lengths -> (batch, steps, outputs) and their lengths."""

    @abstractmethod
    def loss(self, outputs: Tensor, lengths: Tensor, references: Sequence[Sequence[str]]) -> Tensor:
        """Loss in nats per token, over tokens of the alphabet."""

    @abstractmethod
    def decode(self, outputs: Tensor, lengths: Sequence[int]) -> list[list[str]]:
        """Decode the tokens of each utterance greedily."""

    @abstractmethod
    def score(self, references: Sequence[Sequence[str]], decoded: Sequence[Sequence[str]]) -> dict[str, float]:
        """The task's metrics over a set."""

    def error(self, scores: Mapping[str, float]) -> float:
        """The metric that validation selects by; lower is better."""
        return scores[self.metrics[0]]

    def _ids(self, tokens: Sequence[str]) -> list[int]:
        return [self._index.get(token, IGNORED) for token in tokens]


def error_rate(references: Sequence[Sequence[str]], decoded: Sequence[Sequence[str]]) -> float:
    """Insertions, deletions and substitutions in a set, divided by the number of tokens in its references."""
    errors = sum(edit_distance(reference, tokens) for reference, tokens in zip(references, decoded, strict=True))
    return errors / sum(map(len, references))


class SequenceTask(Task):
    """A sequence of tokens without times, by connectionist temporal classification (CTC)."""

    def _fits(self, utterance: str, tokens: Sequence[str]) -> bool:
        repeated = sum(a == b for a, b in zip(tokens, tokens[1:], strict=False))  # a blank must stand between them
        return len(tokens) + repeated <= recogniser_steps(self.steps_of(utterance))

    def network(self, dimensions: int, hidden: int) -> nn.Module:
        return Recogniser(dimensions, hidden, 1 + len(self.alphabet))

    def loss(self, outputs: Tensor, lengths: Tensor, references: Sequence[Sequence[str]]) -> Tensor:
        counts = torch.tensor([len(tokens) for tokens in references])
        targets = torch.tensor([1 + i for tokens in references for i in self._ids(tokens)], device=outputs.device)
        log_probabilities = outputs.log_softmax(-1).transpose(0, 1)
        nats = nn.functional.ctc_loss(log_probabilities, targets, lengths, counts, blank=BLANK, reduction="sum")
        return nats / max(1, int(counts.sum()))

    def decode(self, outputs: Tensor, lengths: Sequence[int]) -> list[list[str]]:
        best = outputs.argmax(-1).cpu()
        paths = (torch.unique_consecutive(row[:length]) for row, length in zip(best, lengths, strict=True))
        return [[self.alphabet[i - 1] for i in path.tolist() if i != BLANK] for path in paths]

    def score(self, references: Sequence[Sequence[str]], decoded: Sequence[Sequence[str]]) -> dict[str, float]:
        return {self.metrics[0]: error_rate(references, decoded)}


class Phones(SequenceTask):
    """TIMIT's 61 codes folded into 39 classes; consecutive silences are merged."""

    name, metrics = "phones", ("phone_error_rate",)


class Units(SequenceTask):
    """Sentencepiece units of transcripts."""

    name, metrics = "units", ("unit_error_rate", "word_error_rate")

    def score(self, references: Sequence[Sequence[str]], decoded: Sequence[Sequence[str]]) -> dict[str, float]:
        words = ([words_from(units) for units in sequences] for sequences in (references, decoded))
        return {**super().score(references, decoded), "word_error_rate": error_rate(*words)}


class Frames(Task):
    """The phone at the middle of each step, by a linear map of the features of that step."""

    name, metrics = "frames", ("accuracy",)

    def network(self, dimensions: int, hidden: int) -> nn.Module:
        return LinearClassifier(dimensions, len(self.alphabet))

    def loss(self, outputs: Tensor, lengths: Tensor, references: Sequence[Sequence[str]]) -> Tensor:
        valid = torch.cat([row[: len(tokens)] for row, tokens in zip(outputs, references, strict=True)])
        targets = torch.tensor([i for tokens in references for i in self._ids(tokens)], device=outputs.device)
        nats = nn.functional.cross_entropy(valid, targets, ignore_index=IGNORED, reduction="sum")
        return nats / max(1, int((targets != IGNORED).sum()))

    def decode(self, outputs: Tensor, lengths: Sequence[int]) -> list[list[str]]:
        best = outputs.argmax(-1).tolist()
        return [[self.alphabet[i] for i in row[:length]] for row, length in zip(best, lengths, strict=True)]

    def score(self, references: Sequence[Sequence[str]], decoded: Sequence[Sequence[str]]) -> dict[str, float]:
        pairs = [pair for row in zip(references, decoded, strict=True) for pair in zip(*row, strict=True)]
        labelled = [reference == token for reference, token in pairs if reference != UNLABELLED]
        return {"accuracy": sum(labelled) / len(labelled)}

    def error(self, scores: Mapping[str, float]) -> float:
        return 1.0 - scores["accuracy"]

    def chance(self) -> dict[str, float]:
        counts = {s: Counter(token for tokens in self.references[s].values() for token in tokens) for s in SETS}
        for counter in counts.values():
            counter.pop(UNLABELLED, None)
        [(commonest, _)] = counts["train"].most_common(1)
        return {"accuracy": counts["test"][commonest] / counts["test"].total()}


def phones_in_order(segments: Sequence[Interval]) -> list[str]:
    """Phones of an utterance, folded into 39 classes; consecutive silences (such as closure and pause) are merged."""
    folded = [phone for segment in segments if (phone := fold(segment.label, CLASSES)) is not None]
    return [p for p, before in zip(folded, [None, *folded], strict=False) if not p == before == SILENCE]


def phones_at_steps(segments: Sequence[Interval], frames: int, hop: int) -> list[str]:
    """The folded phone at the middle frame of each step of the clock; "" if there is none."""
    starts = [segment.start_sample for segment in segments]
    found = []
    for step in range(clock_steps(frames, hop)):
        middle = step * hop + hop // 2
        place = bisect_right(starts, middle) - 1
        inside = place >= 0 and middle < segments[place].end_sample
        found.append(fold(segments[place].label, CLASSES) or UNLABELLED if inside else UNLABELLED)
    return found


def build_task(
    name: str, data: Mapping[str, DataDirectory], utterances: Mapping[str, Sequence[str]], hop: int, units: bytes | None
) -> Task:
    """Build a task for three sets.

    Args:
        name: phones, units or frames.
        data: data directories, by set.
        utterances: utterances with features, by set.
        hop: hop of the clock in frames.
        units: sentencepiece model, for `units`.
    """
    frames = {u: data[s].num_samples[u] for s in SETS for u in utterances[s]}
    references: dict[str, References] = {}
    for s in SETS:
        if name == "units":
            processor = load_units(units)
            text = {u: data[s].text[u] for u in utterances[s] if u in data[s].text}
            references[s] = {u: tokens for u in text if (tokens := units_of(processor, text[u]))}
        else:
            segments = {u: data[s].phones[u] for u in utterances[s] if u in data[s].phones}
            references[s] = {
                u: phones_in_order(segments[u]) if name == "phones" else phones_at_steps(segments[u], frames[u], hop)
                for u in segments
            }
    return {task.name: task for task in (Phones, Units, Frames)}[name](references, utterances, frames, hop)
