"""How the work of scoring is shared out changes no score: batches, chunks, order and shards, one sample or several."""

from pathlib import Path

import pytest
import torch

from speechlvm.data.dumps import open_dump
from speechlvm.data.dumps.dump import share_of
from speechlvm.experiment.config import load_config
from speechlvm.experiment.load import build
from speechlvm.observation import AudioObservation, Statistics
from speechlvm.scoring.score import AUDIO_BATCH_FRAMES, BATCH_BYTES, most_frames, score_dump, step_bytes

CONF = Path(__file__).resolve().parents[3] / "egs/timit/conf"

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


@pytest.mark.parametrize(
    ("name", "measured_bytes"),  # of a step, in scoring
    [("vrnn_s1_z256", 25_000), ("srnn_s1_z256", 25_000), ("stcn_dense_s1", 63_000), ("lstm_s64_d256_l1", None)],
)
def test_batches_are_as_large_as_12_gigabytes_allow(name, measured_bytes):
    config = load_config(CONF / f"{name}.yaml")
    with torch.device("meta"):
        observation = AudioObservation(config.coding, Statistics(0.0, 0.1))
        model = build(config, observation, seed=1)
    most = most_frames(observation, None, model)
    assert most_frames(observation, 700, model) == 700
    if measured_bytes is None:
        assert most == AUDIO_BATCH_FRAMES
    else:
        assert most == BATCH_BYTES // step_bytes(model) < AUDIO_BATCH_FRAMES / 2
        assert 2e9 < most * measured_bytes < 6e9
