"""Results and tables on disk, without any training."""

import json
import math

import pytest


@pytest.fixture
def write_result(tmp_path):
    """write_result(experiment, nats, **fields): one seed's score of `test`, two utterances of 300 frames together."""

    def write(experiment, nats, seed=1, folder="score_test", root="exp/train", **fields):
        densities = fields.get("coding", "normalised") == "normalised"
        bits = -nats / 150 / math.log(2)
        result = {
            "model": experiment, "set": "test", "coding": "normalised", "bound": "exact", "seed": seed,
            "system": "lstm", "unit": "density" if densities else "pmf", "steps": 7, "hours": 2.0, "parameters": 10,
            "distribution": {"name": "gaussian", "minimum_std": 0.01}, "frames": 300, "utterances": 2,
            "nats_per_utterance": nats, "nats_per_frame": nats / 150, "bits_per_frame": None if densities else bits,
            "bits_per_frame_interval": None if densities else [bits, bits], "terms_nats_per_frame": {},
        }  # fmt: skip
        directory = tmp_path / root / experiment / f"seed{seed}" / folder
        directory.mkdir(parents=True)
        (directory / "result.json").write_text(json.dumps({**result, **fields}))
        (directory / "done.json").write_text("{}")
        return directory

    return write


@pytest.fixture
def write_table(tmp_path):
    """write_table(rows, name, unit, coding, **more): a table's YAML file; returns the directory of all of them."""

    def write(rows, name="T", unit="nats_per_utterance", coding="normalised", **more):
        directory = tmp_path / "tables"
        directory.mkdir(exist_ok=True)
        value = {"table": name, "title": "t", "unit": unit, "coding": coding, "sets": ["test"], **more, "rows": rows}
        (directory / f"{name}.yaml").write_text(json.dumps(value))  # JSON is YAML
        return directory

    return write
