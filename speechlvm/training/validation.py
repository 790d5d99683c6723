"""Scores the validation set during training, distributed over the training processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from speechlvm.data.dumps.dump import Dump
from speechlvm.models.base import Model
from speechlvm.observation import Observation
from speechlvm.scoring.accounting import CorpusScore, UtteranceScore, corpus_score
from speechlvm.scoring.score import most_frames, score_dump
from speechlvm.training.distributed import OneProcess
from speechlvm.training.dry_run import memory_errors


class Validation:
    """Scores a fixed set of utterances.

    Args:
        dump: dump of the validation set.
        utterances: its utterances to score, sorted.
        observation: observation on the device of the model.
        max_frames: maximum frames per batch; None: the default of `score_dump`.
        processes: processes that share the work.
        requests: stop signals received.
    """

    def __init__(
        self,
        dump: Dump,
        utterances: Sequence[str],
        observation: Observation,
        max_frames: int | None,
        processes: OneProcess,
        requests: Sequence[int],
    ) -> None:
        self.dump, self.utterances, self.observation, self.max_frames = dump, utterances, observation, max_frames
        self.processes, self.requests = processes, requests
        self.frames = {utterance: dump.records[utterance].frames for utterance in utterances}
        # sorted by length, so that all shards take about the same time
        self.shard = processes.shard(sorted(utterances, key=lambda utterance: (-self.frames[utterance], utterance)))

    def score(self, model: Model) -> CorpusScore | None:
        """The score of the whole set, on every process; None if a signal interrupted it."""
        places = {utterance: place for place, utterance in enumerate(self.utterances)}
        names = ["log_likelihood", *(f"kl_{level}" for level in model.latent_hops)]
        most = -(-len(self.utterances) // self.processes.size)
        rows = torch.full((most, 2 + len(names)), -1.0, dtype=torch.float64)  # place, nats, terms
        model.eval()
        with self.processes.raise_on_all():
            for row, score in zip(rows, self._scores(model), strict=False):
                terms = [score.terms[name] for name in names]
                row[:] = torch.tensor([places[score.utterance], score.nats, *terms], dtype=torch.float64)
                if self.requests:
                    break
        model.train()
        scores = []
        for place, nats, *terms in self.processes.all_gather_tensor(rows).flatten(0, 1).tolist():
            if place >= 0:
                name = self.utterances[int(place)]
                scores.append(UtteranceScore(name, self.frames[name], nats, dict(zip(names, terms, strict=True))))
        return corpus_score(scores, resamples=2) if len(scores) == len(self.utterances) else None

    def _scores(self, model: Model) -> Iterator[UtteranceScore]:
        if not self.shard:
            return
        most = most_frames(self.observation, self.max_frames, model)
        with memory_errors("a batch of the validation set", f"--max_frames (now {most})"):
            yield from score_dump(model, self.observation, self.dump, self.shard, max_frames=self.max_frames)
