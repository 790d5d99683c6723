"""Results on disk: shards of a scored set, utt2nats, utt2num_frames and result.json."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speechlvm.scoring.accounting import UtteranceScore, corpus_score
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import atomic_write, read_json, write_json
from speechlvm.utils.shards import read_shards, remove_shards_beyond, write_shard
from speechlvm.utils.text import counted

EXACT_BOUNDS = ("exact", "code-length")


def write(directory: Path, job: int, scores: Iterable[UtteranceScore], inputs: dict[str, Any]) -> None:
    """Write the scores of one job, exactly (JSON keeps all digits of a float64)."""
    with write_shard(directory, job, inputs) as shard:
        shard.about["scores"] = [asdict(score) for score in scores]


def merge(directory: Path, jobs: int, description: dict[str, Any]) -> dict[str, Any]:
    """Join the shards into utt2nats, utt2num_frames and result.json.

    Args:
        directory: directory of the score.
        jobs: number of shards.
        description: fields of result.json that are not sums: model, set, coding, unit ("pmf" or "density"), bound, ...

    Raises:
        UserError: an utterance is scored twice.
    """
    scores = [UtteranceScore(**score) for shard in read_shards(directory, jobs) for score in shard["scores"]]
    names = {score.utterance for score in scores}
    if len(names) != len(scores):
        raise UserError(f"{directory}: an utterance is in two shards; remove {directory} and score again")
    scores.sort(key=lambda score: score.utterance)
    with atomic_write(directory / "utt2nats") as stream:
        stream.writelines(f"{score.utterance} {score.nats!r}\n" for score in scores)
    with atomic_write(directory / "utt2num_frames") as stream:
        stream.writelines(f"{score.utterance} {score.frames}\n" for score in scores)
    total = corpus_score(scores)
    density = description["unit"] == "density"
    result = {
        **description,
        "bits_per_frame": None if density else total.bits_per_frame,
        "bits_per_frame_interval": None if density else list(total.interval),
        "bits_per_frame_mean_of_utterances": None if density else total.mean_utterance_bits_per_frame,
        "nats_per_frame": total.nats_per_frame,
        "nats_per_utterance": total.nats_per_utterance,
        "terms_nats_per_frame": total.terms_nats_per_frame,
        "frames": total.frames,
        "utterances": total.utterances,
    }
    write_json(directory / "result.json", result)
    remove_shards_beyond(directory, jobs)
    return result


def read_utterances(directory: Path) -> dict[str, tuple[float, int]]:
    """Nats and frames of each utterance of a complete score."""
    nats, frames = (
        dict(line.split() for line in (directory / name).read_text(encoding="utf-8").splitlines())
        for name in ("utt2nats", "utt2num_frames")
    )
    return {utterance: (float(value), int(frames[utterance])) for utterance, value in nats.items()}


def of_dump(directory: Path) -> dict[str, Any]:
    """Fields of result.json that describe the data that were scored."""
    info = read_json(Path(directory) / "info.json")
    return {"data_hash": info["data_hash"], "preparation": info.get("preparation", {})}


def describe(result: dict[str, Any]) -> str:
    """One-line summary of a result."""
    prefix = "" if result["bound"] in EXACT_BOUNDS else "<= " if result["unit"] == "pmf" else ">= "
    if result["unit"] == "pmf":
        low, high = result["bits_per_frame_interval"]
        value = f"{prefix}{result['bits_per_frame']:.4f} bits/frame [{low:.3f}, {high:.3f}]"
    else:
        value = f"{prefix}{result['nats_per_utterance']:.1f} nats/utterance"
    size = counted(result["utterances"], "utterances")
    return f"{result['model']} on {result['set']} ({result['coding']}): {value}, {size}"
