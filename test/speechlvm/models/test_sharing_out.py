"""How the work of scoring is shared out changes no score: batches, chunks, order and shards, one sample or several."""

import pytest

from speechlvm.data.dumps import open_dump
from speechlvm.data.dumps.dump import share_of
from speechlvm.scoring.score import score_dump

LENGTHS = [45, 33, 16, 50, 1]


def test_batches_chunks_order_and_shards_change_nothing(tiny, make_dump):
    dump = open_dump(make_dump("test", LENGTHS))
    for samples in (1,) if tiny.model.bound == "exact" else (1, 3):
        _check(tiny, dump, samples)


def _check(tiny, dump, samples):
    def nats(utterances=None, max_frames=10**6, chunk_frames=10**6):
        scores = score_dump(
            tiny.model, tiny.observation, dump, utterances,
            max_frames=max_frames, chunk_frames=chunk_frames, samples=samples,
        )  # fmt: skip
        return {score.utterance: score.nats for score in scores}

    together = nats()
    assert set(together) == set(dump.records)
    names = sorted(dump.records)
    ways = [nats(max_frames=1), nats(max_frames=100), nats(chunk_frames=1), nats(names[::-1])]
    ways.append(nats(max_frames=100, chunk_frames=20))
    for jobs in (2, 4):
        shards = [nats(share_of(names, job, jobs), max_frames=90) for job in range(1, jobs + 1)]
        ways.append({name: value for shard in shards for name, value in shard.items()})
        assert sum(map(len, shards)) == len(names)
    for way in ways:
        assert way == pytest.approx(together, rel=1e-9, abs=1e-9)


def test_long_utterances_are_neither_read_nor_encoded_as_a_whole(tiny, make_dump, monkeypatch):
    dump = open_dump(make_dump("test", [500]))
    read, encode, spans = dump.read, tiny.model.encode, []

    def counting(utterance, start, stop):
        spans.append(stop - start)
        return read(utterance, start, stop)

    def bounded(inputs, lengths):
        spans.append(inputs.shape[1])
        return encode(inputs, lengths)

    monkeypatch.setattr(dump, "read", counting)
    monkeypatch.setattr(tiny.model, "encode", bounded)
    (score,) = score_dump(tiny.model, tiny.observation, dump, max_frames=48)
    hops = -(-48 // tiny.model.hop) + 2 * -(-tiny.model.halo // tiny.model.hop)
    assert score.frames == 500 and 48 <= max(spans) <= hops * tiny.model.hop < 250
