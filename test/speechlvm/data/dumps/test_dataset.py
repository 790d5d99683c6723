import os
import subprocess
import sys

import numpy as np
import pytest

from speechlvm.data.dumps import dataset, open_dump
from speechlvm.data.dumps.dataset import DataSettings

FRAMES = {f"u{i:02d}": 500 + 37 * i for i in range(40)}


def _covered(batches):
    return sorted((s.utterance, s.start, s.frames) for batch in batches for s in batch)


def test_whole_utterances_come_once_in_batches_within_the_bound():
    batches = dataset.whole_utterance_batches(FRAMES, 8000, seed=1, epoch=0)
    assert _covered(batches) == sorted((u, 0, n) for u, n in FRAMES.items())
    padded = [max(s.frames for s in batch) * len(batch) for batch in batches]
    assert max(padded) <= 8000
    waste = 1 - sum(FRAMES.values()) / sum(padded)
    assert waste < 0.1


@pytest.mark.parametrize("batch_frames, max_frames, most", [(8000, None, 8000), (8000, 1000, 1000), (900, 5000, 900)])
def test_longer_utterances_come_in_consecutive_pieces(batch_frames, max_frames, most):
    frames = {**FRAMES, "long": 20001, "twice": 16000}
    batches = dataset.whole_utterance_batches(frames, batch_frames, 1, 0, max_frames)
    assert max(max(s.frames for s in batch) * len(batch) for batch in batches) <= batch_frames
    of = {}
    for segment in sorted(sum(batches, []), key=lambda s: s.start):
        of.setdefault(segment.utterance, []).append(segment)
    assert set(of) == set(frames)
    for utterance, found in of.items():
        assert len(found) == -(-frames[utterance] // most)
        assert [s.start for s in found] == [sum(s.frames for s in found[:i]) for i in range(len(found))]
        assert sum(s.frames for s in found) == frames[utterance]
        assert max(s.frames for s in found) <= min(most, min(s.frames for s in found) + 1)
    settings = DataSettings(batch_frames=batch_frames, max_frames=max_frames)
    assert dataset.plan_batches(frames, settings, 1, 0) == batches
    assert dataset.cut_utterances(frames, settings) == sum(len(found) > 1 for found in of.values())


@pytest.mark.parametrize("make", [
    lambda seed, epoch: dataset.whole_utterance_batches(FRAMES, 8000, seed, epoch),
    lambda seed, epoch: dataset.whole_utterance_batches(FRAMES, 8000, seed, epoch, 700),
    lambda seed, epoch: dataset.random_segment_batches(FRAMES, 400, 1600, seed, epoch),
])  # fmt: skip
def test_order_is_a_function_of_seed_and_epoch(make):
    assert make(1, 0) == make(1, 0)
    assert make(1, 0) != make(1, 1)
    assert make(1, 0) != make(2, 0)


def test_random_segments_lie_inside_and_cover_the_utterance_evenly():
    starts = []
    for epoch in range(300):
        for segment in sum(dataset.random_segment_batches({"a": 1000, "b": 300}, 400, 800, 1, epoch), []):
            assert segment.start + segment.frames <= {"a": 1000, "b": 300}[segment.utterance]
            assert segment.frames == {"a": 400, "b": 300}[segment.utterance]
            if segment.utterance == "a":
                starts.append(segment.start)
    assert min(starts) < 20 and max(starts) > 580 and abs(np.mean(starts) - 300) < 40


def test_a_segment_does_not_depend_on_the_other_utterances():
    both = sum(dataset.random_segment_batches({"a": 5000, "b": 5000}, 400, 400, 3, 7), [])
    alone = sum(dataset.random_segment_batches({"a": 5000}, 400, 400, 3, 7), [])
    assert alone[0] in both


def test_scoring_batches_start_with_the_largest():
    batches = dataset.consecutive_batches(FRAMES, 8000)
    assert _covered(batches) == sorted((u, 0, n) for u, n in FRAMES.items())
    assert batches[0][0].frames == max(FRAMES.values())


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_padded_with_zeros_and_read_in_order(make_dump, workers):
    dump = open_dump(make_dump("train", [50, 80, 20]))
    plan = [
        [dataset.Segment("u01", 10, 30), dataset.Segment("u02", 0, 20)],
        [dataset.Segment("u00", 0, 50)],
    ]
    first, second = dataset.load_batches(dump, plan, workers)
    assert first.data.shape == (2, 30) and first.lengths.tolist() == [30, 20] and first.frames == 50
    np.testing.assert_array_equal(first.data[0].numpy(), dump.read("u01", 10, 40))
    assert not first.data[1, 20:].any()
    assert second.segments == tuple(plan[1])
    assert first.noise_keys(1, 2) == [(1, 2, "u01", 10), (1, 2, "u02", 0)]


def test_processes_read_ahead_though_the_path_of_the_temporary_folder_is_long(make_dump, tmp_path):
    script = (
        "import sys\nfrom speechlvm.data.dumps import dataset, open_dump\nplan = [[dataset.Segment('u00', 0, 50)]]\n"
        "print([batch.frames for batch in dataset.load_batches(open_dump(sys.argv[1]), plan, 1)])"
    )
    (folder := tmp_path / ("x" * 100)).mkdir()
    command = [sys.executable, "-c", script, make_dump("train", [50])]
    done = subprocess.run(
        command, env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True, timeout=1200
    )
    assert (done.returncode, done.stdout) == (0, "[50]\n"), done.stderr
