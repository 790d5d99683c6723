"""Shards of a directory: complete or absent, merged in order, and damage to their archives is noticed."""

import pytest

from speechlvm.utils.shards import damaged_shards, read_shards, remove_shards_beyond, write_index, write_shard


def write(directory, job, utterances, stem="z1_mean"):
    with write_shard(directory, job, {"from": "here"}, [stem]) as shard:
        for utterance in utterances:
            shard.entries[stem].append([utterance, shard.streams[stem].tell(), 3])
            shard.streams[stem].write(b"abc")


def test_merged_in_the_order_of_utterances(tmp_path):
    write(tmp_path, 1, ["b", "d"])
    write(tmp_path, 2, ["a", "c"])
    write(tmp_path, 3, ["of an earlier run"])
    lines = write_index(tmp_path, read_shards(tmp_path, 2), "z1_mean", "lengths")
    assert lines == [("a", 2, 0, 3), ("b", 1, 0, 3), ("c", 2, 3, 3), ("d", 1, 3, 3)]
    assert (tmp_path / "z1_mean.scp").read_text().splitlines()[2] == f"c {tmp_path}/z1_mean.2.ark:3"
    assert (tmp_path / "lengths").read_text() == "a 3\nb 3\nc 3\nd 3\n"
    remove_shards_beyond(tmp_path, 2, "z1_mean")
    assert not list(tmp_path.glob("*.3.*")) and len(list(tmp_path.glob("*.2.*"))) == 2


def test_an_error_leaves_no_shard(tmp_path):
    write(tmp_path, 1, ["a"])
    with pytest.raises(ValueError, match="^broken$"), write_shard(tmp_path, 1, {}, ["z1_mean"]):
        raise ValueError("broken")
    assert not list(tmp_path.glob("shard.*")) and damaged_shards(tmp_path) == {1}  # of the old archive


@pytest.mark.parametrize("damage", ["cut", "removed", "undescribed"])
def test_damage_is_noticed_in_the_shard_it_concerns(tmp_path, damage):
    write(tmp_path, 1, ["a"])
    write(tmp_path, 2, ["b"])
    assert damaged_shards(tmp_path) == set()
    archive = tmp_path / "z1_mean.2.ark"
    if damage == "cut":
        archive.write_bytes(b"ab")
    else:
        (archive if damage == "removed" else tmp_path / "shard.2.json").unlink()
    assert damaged_shards(tmp_path) == {2}
