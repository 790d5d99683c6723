"""Results, tables and whole experiments on disk, without any training."""

import csv
import io
import json
import math

import numpy as np
import pytest

from speechlvm.bin import report
from speechlvm.data.audio import write_wav
from speechlvm.reporting.pictures import new_figure
from speechlvm.utils.files import write_json

RATE_HZ = 16000


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
        (directory / "utt2nats").write_text(f"u1 {nats - 1}\nu2 {nats + 1}\n")
        (directory / "utt2num_frames").write_text("u1 150\nu2 150\n")
        return directory

    return write


@pytest.fixture
def write_file(tmp_path):
    """write_file(place, **fields): what stage 9 says of 2 utterances, 30 s in 300 frames, below exp/train."""

    def write(place, **fields):
        result = {
            "model": place.split("/")[0], "system": "lstm", "set": "test", "coding": "mulaw-pcm", "bound": "exact",
            "seed": 1, "utterances": 2, "frames": 300, "model_bits": 2000.0, "table_bits": 2000.25, "stream_bits": 2010,
            "initial_bits": 0, "header_bits": 90, "file_bytes": 263, "flac_bytes": 300, "encode_seconds": 15.0,
            "decode_seconds": 60.0, "rate_hz": 10, "lanes": 4, "data_hash": "d", "verified": True,
        }  # fmt: skip
        directory = tmp_path / "exp/train" / place / "compressed_test"
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


@pytest.fixture
def run(tmp_path):
    """run(*options): stage 10 on exp/train with the tables of write_table; returns RESULTS.md."""
    (tmp_path / "tables").mkdir(exist_ok=True)

    def call(*options):
        exp, out = tmp_path / "exp" / "train", tmp_path / "RESULTS.md"
        report.main(["--exp", str(exp), "--tables", str(tmp_path / "tables"), "--out", str(out), *options])
        return out.read_text(encoding="utf-8")

    return call


@pytest.fixture
def records(tmp_path):
    """records(name): the lines of a table's CSV."""

    def read(name="T"):
        with open(tmp_path / "exp/train/tables" / f"{name}.csv", encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))

    return read


def _curve(accuracy, chance, items=40):
    several = [round(accuracy - 0.002 * k, 4) for k in range(50)]
    return {
        "k": list(range(1, 51)), "accuracy": several, "low": [a - 0.05 for a in several],
        "high": [min(1.0, a + 0.05) for a in several], "chance": chance, "items": items,
    }  # fmt: skip


def _classification(accuracies, chance, protocols):
    """As stage 7 writes it: accuracy at k = 1 of each representation; speakers left out cost a tenth."""
    cost = {"leave_one_out": 0.0, "fit_on_all": -0.01, "leave_one_speaker_out": 0.1}
    return {
        "items": 40, "speakers": 4, "classes": {"a": 24, "b": 16}, "left_out": ["c"], "chance": chance, "notes": [],
        "representations": {
            name: {
                "kind": "latent", "rate_hz": 250.0, "dimensions": 8,
                "curves": {protocol: _curve(accuracy - cost[protocol], chance) for protocol in protocols},
                "headline": {"protocol": "leave_one_out", "k": 10, "accuracy": 0.5, "low": 0.4, "high": 0.6},
            }
            for name, accuracy in accuracies.items()
        },
    }  # fmt: skip


def _level(name, collapsed=False):
    posterior = name.startswith("z")
    return {
        "kind": "latent" if posterior else "spectrum", "rate_hz": 250.0, "dimensions": 96, "collapsed": collapsed,
        "active_units": (0 if collapsed else 30) if posterior else None,
        "active_units_by_kl": (0 if collapsed else 28) if posterior else None,
        "kl_nats_per_step": (0.0 if collapsed else 21.5) if posterior else None,
        "kl_bits_per_second": (0.0 if collapsed else 7754.4) if posterior else None, "autocorrelation_ms": 42.25,
        "autocorrelation": [1.0, 0.5, 0.1],
    }  # fmt: skip


@pytest.fixture(scope="session")
def png():
    """Bytes of a picture."""
    figure = new_figure(figsize=(4, 3))
    figure.add_subplot().plot([1, 2, 4])
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _write_stage_7(directory, accuracies, png):
    """All analyses of stage 7, of representations with these accuracies at k = 1, and a picture of each."""
    both, all_of_them = ("leave_one_out", "fit_on_all"), ("leave_one_out", "fit_on_all", "leave_one_speaker_out")
    results = {
        "levels": {"representations": {name: _level(name, collapsed=name == "z2") for name in accuracies}},
        "phones": {**_classification(accuracies, 0.1, both), "folding": 61, "speaker": "s1"},
        "gender": _classification(accuracies, 0.6, all_of_them),
        "height": {"groups": {"men": _classification(accuracies, 0.4, all_of_them)}, "notes": ["none of women"]},
    }
    for name, result in results.items():
        write_json(directory / "analysis" / name / "result.json", {"analysis": name, "set": ["test"], **result})
        (directory / "analysis" / name / f"{name}_accuracy.png").write_bytes(png)
        (directory / "analysis" / name / "done.json").write_text("{}")


def _write_probes(directory, rates):
    """Probes of stage 8: representation -> unit error rate of seed 1; that of seed 2 is 0.02 more."""
    runs = [
        {
            "task": "units", "representation": name, "size": size, "seed": seed, "minutes": minutes, "utterances": 9,
            "unit_error_rate": rate + 0.02 * (seed - 1), "word_error_rate": 0.9, "valid": {"unit_error_rate": 0.5},
            "best_step": 100,
        }
        for name, rate in rates.items()
        for size, minutes in (("10", 10.1), ("all", 17.25))
        for seed in (1, 2)
    ]  # fmt: skip
    tasks = {"units": {"chance": {}, "alphabet": ["a"]}}
    write_json(directory / "probes" / "result.json", {"source": "x", "runs": runs, "tasks": tasks, "summary": []})
    (directory / "probes" / "done.json").write_text("{}")


def _tone(seconds, hertz):
    """int16 samples."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return np.rint(8000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


@pytest.fixture
def write_analyses(png):
    """write_analyses(directory, accuracies): all of stages 7 and 8, of representations with these accuracies at k = 1.

    At k = 10 they are 0.018 less, and 0.1 less where speakers are left out; a probe's error rate is one less accuracy,
    and 0.02 more from its second seed.
    """

    def write(directory, accuracies):
        _write_stage_7(directory, accuracies, png)
        _write_probes(directory, {name: 1 - accuracy for name, accuracy in accuracies.items()})

    return write


@pytest.fixture
def make_experiment(write_result, write_analyses):
    """make_experiment(name, extra): an experiment with everything, without training: its directory.

    Sounds are tones of 3, 3.25, ... seconds; `extra` are further entries of samples.json.
    """

    def make(name="cwvae", extra=()):
        terms = {"log_likelihood": -9.0, "kl_z1": 0.5}
        directory = write_result(
            name, -12.5 * 150 * math.log(2), coding="mulaw", bound="elbo", terms_nats_per_frame=terms, parameters=12345
        ).parent
        (directory / "config.yaml").write_text("model: cwvae\ncoding: mulaw\ndistribution: dmol\n")
        with open(directory / "history.jsonl", "w") as stream:
            for step in range(4):
                bits = 14.0 - step
                entry = {"step": 100 * step, "seconds": 30.0 * step, "bits_per_frame": bits, "nats_per_frame": -bits}
                stream.write(json.dumps(entry) + "\n")
        entries = [
            {
                "name": "prior_0",
                "kind": "prior",
                "log_likelihood_nats": -1234.5,
                "marks": [],
                "description": "Drawn from the model.",
                "picture": "prior.png",
            },
            {"name": "prior_1", "kind": "prior", "picture": "prior.png", "log_likelihood_nats": -1234.5, "marks": []},
            {"name": "continuation_u1", "kind": "continuation", "log_likelihood_nats": None, "marks": [4000]},
            {
                "name": "resampled_z2_1",
                "kind": "resampled",
                "level": "z2",
                "temperature": 0.8,
                "utterances": ["u1", "u2"],
                "reference": "prior_0",
                "picture": "resampled_z2.png",
            },
            *extra,
        ]
        for place, entry in enumerate(entries):
            (directory / "samples").mkdir(exist_ok=True)
            write_wav(
                directory / "samples" / f"{entry['name']}.wav", _tone(3 + 0.25 * place, 300 + 100 * place), RATE_HZ
            )
        write_json(directory / "samples" / "samples.json", entries)
        (directory / "samples" / "done.json").write_text("{}")
        write_analyses(directory, {"z1": 0.8, "z2": 0.5})
        return directory

    return make
