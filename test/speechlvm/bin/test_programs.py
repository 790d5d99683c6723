"""The programs of stages 4, 5, 9 and 10 on a tiny trained model."""

import importlib
import json
import math
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from programs import call

from speechlvm.bin import baseline, report, sample, score, train
from speechlvm.data.dumps import open_dump
from speechlvm.models.adaptive import Adaptive
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.files import atomic_write

SHARED = {"__init__", "cli", "inputs"}
PROGRAMS = sorted({path.stem for path in Path(sample.__file__).parent.glob("*.py")} - SHARED)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept") / "exp"


@pytest.fixture
def trained(make_dump, tiny_config, tmp_path, kept):
    """(root, experiment, training dump, test dump) after 12 steps; each test has a copy of one training."""
    paths = make_dump("train", [3000, 2500, 2000]), make_dump("valid", [1200], seed=50)
    test = make_dump("test", [900, 1700, 333, 1], seed=90)
    root = tmp_path / "exp" / "train"
    out = root / "tiny" / "seed1"
    if not kept.exists():
        run(train, "--config", tiny_config(), "--train", paths[0], "--valid", paths[1], "--out", out)
        shutil.copytree(tmp_path / "exp", kept)
    shutil.copytree(kept, tmp_path / "exp", dirs_exist_ok=True)
    return root, out, paths[0], test


def run(program, *arguments):
    return program.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("name", PROGRAMS)
def test_help(name, capsys):
    program = importlib.import_module(f"speechlvm.bin.{name}")
    with pytest.raises(SystemExit, match="^0$"):
        program.main(["--help"])
    shown = capsys.readouterr().out
    assert "usage:" in shown and "--debug" in shown
    assert "default: )" not in shown and "default: None" not in shown  # where there is none
    with pytest.raises(SystemExit, match="^2$"):
        program.main(["--nonsense"])
    assert Path(program.__file__).read_text().endswith('if __name__ == "__main__":\n    run_main(main)\n')


def test_a_score_says_all_that_the_contract_asks(trained):
    _, out, _, test = trained
    assert run(score, "--exp", out, "--dump", test, "--out", out / "score_test") == 0
    result = json.loads((out / "score_test" / "result.json").read_text())
    assert result["model"] == "tiny" and result["set"] == "test" and result["train_set"] == "train"
    assert (result["coding"], result["unit"], result["bound"], result["seed"]) == ("mulaw", "pmf", "exact", 1)
    assert result["utterances"] == 4 and result["frames"] == 900 + 1700 + 333 + 1
    assert result["parameters"] > 0 and result["hours"] > 0 and result["config_hash"] and result["data_hash"]
    nats = dict(line.split() for line in (out / "score_test" / "utt2nats").read_text().splitlines())
    assert list(nats) == ["u00", "u01", "u02", "u03"]
    total = math.fsum(float(value) for value in nats.values())
    assert result["nats_per_frame"] == total / result["frames"]
    assert result["bits_per_frame"] == pytest.approx(-total / result["frames"] / math.log(2))
    assert result["nats_per_utterance"] == pytest.approx(total / 4)
    low, high = result["bits_per_frame_interval"]
    assert low <= result["bits_per_frame"] <= high


def test_jobs_and_memory_bounds_change_nothing(trained, capsys):
    _, out, _, test = trained
    arguments = ["--exp", out, "--dump", test]
    run(score, *arguments, "--out", out / "one", "--double")
    shared = [*arguments, "--out", out / "three", "--double", "--nj", 3, "--max_frames", 1, "--chunk_frames", 1]
    assert run(score, *shared, "--check") == 1
    for job in (3, 1):
        run(score, *shared, "--job", job)
    with pytest.raises(UserError, match="job 2 of 3 has not been done"):
        run(score, *shared, "--merge")
    run(score, *shared, "--job", 2)
    run(score, *shared, "--merge")
    assert run(score, *shared, "--check") == 0
    one, three = (dict(line.split() for line in (out / name / "utt2nats").open()) for name in ("one", "three"))
    for utterance, nats in one.items():
        assert float(three[utterance]) == pytest.approx(float(nats), abs=1e-6)
    capsys.readouterr()
    run(score, *shared)
    assert capsys.readouterr().out == f"{out / 'three'}: complete\n"


def test_a_mulaw_model_is_a_model_of_the_pcm(trained):
    _, out, _, test = trained
    run(score, "--exp", out, "--dump", test, "--out", out / "score_test")
    run(score, "--exp", out, "--dump", test, "--out", out / "score_pcm", "--coding", "mulaw-pcm")
    codes, pcm = (json.loads((out / name / "result.json").read_text()) for name in ("score_test", "score_pcm"))
    assert pcm["coding"] == "mulaw-pcm"
    # several PCM cells make up a code's cell only at high amplitude; near silence a PCM cell spans thousands of codes
    assert pcm["bits_per_frame"] < codes["bits_per_frame"]
    with pytest.raises(ConfigError, match="inputs differ"):
        run(score, "--exp", out, "--dump", test, "--out", out / "x", "--coding", "linear")


def test_bounds_of_several_particles(make_dump, tiny_config, tmp_path):
    vrnn = (
        ("model: lstm", "model: vrnn"),
        ("model_conf: {stack: 16, hidden: 12, layers: 1}", "model_conf: {stack: 16, hidden: 6, latent: 3, state: 5}"),
        ("limits: {steps: 12}", "limits: {steps: 3}"),
    )
    dump, out = make_dump("test", [900, 1700, 333, 1]), tmp_path / "exp"
    run(train, "--config", tiny_config(*vrnn), "--train", dump, "--valid", dump, "--out", out)
    given = ["--exp", out, "--dump", dump, "--double"]
    results = {}
    for name, more in {
        "elbo": [],
        "iwae-4": ["--bound", "iwae", "--particles", 4],
        "fivo-4": ["--bound", "fivo", "--particles", 4],
        "again": ["--bound", "fivo", "--particles", 4, "--max_frames", 40, "--chunk_frames", 1, "--nj", 3],
    }.items():
        run(score, *given, "--out", out / name, *more)
        results[name] = json.loads((out / name / "result.json").read_text())
    assert {name: result["bound"] for name, result in results.items()} == {
        "elbo": "elbo", "iwae-4": "iwae-4", "fivo-4": "fivo-4", "again": "fivo-4"
    }  # fmt: skip
    nats = {name: result["nats_per_frame"] for name, result in results.items()}
    assert len(set(nats.values())) >= 3
    assert nats["again"] == pytest.approx(nats["fivo-4"], rel=1e-9)
    with pytest.raises(SystemExit, match="^2$"):
        run(score, *given, "--out", out / "x", "--bound", "fivo", "--particles", 1)


def test_baselines(trained):
    root, _, training, test = trained
    results = {}
    for name, coding in (
        ("uniform", "mulaw"),
        ("dmol", "mulaw"),
        ("dmol", "mulaw-pcm"),
        ("flac", "mulaw"),
        ("adaptive", "mulaw"),
    ):
        out = root / f"{name}_{coding}" / "score_test"
        run(baseline, "--name", name, "--train", training, "--dump", test, "--coding", coding, "--out", out)
        results[name, coding] = json.loads((out / "result.json").read_text())
    assert results["uniform", "mulaw"]["bits_per_frame"] == 16.0
    assert results["dmol", "mulaw"]["bits_per_frame"] < 16.0
    assert results["flac", "mulaw"]["bound"] == "code-length" and results["flac", "mulaw"]["coding"] == "linear"
    assert results["flac", "mulaw"]["bits_per_frame"] > 8
    adaptive = results["adaptive", "mulaw"]
    assert (adaptive["bound"], adaptive["coding"]) == ("exact", "linear")
    assert adaptive["bits_per_frame"] < results["dmol", "mulaw-pcm"]["bits_per_frame"]


def test_samples_and_pictures(trained):
    _, out, _, test = trained
    options = ["--exp", out, "--dump", test, "--out", out / "samples", "--count", 2]
    options += ["--seconds", 0.05, "--prefix_seconds", 0.02]
    run(sample, *options)
    index = json.loads((out / "samples" / "samples.json").read_text())
    assert [entry["kind"] for entry in index] == ["prior"] * 2 + ["temperature"] * 4 + ["continuation"] * 2
    for entry in index:
        pcm, rate = soundfile.read(out / "samples" / f"{entry['name']}.wav", dtype="int16")
        assert rate == 16000 and len(pcm) == 800 + (320 if entry["kind"] == "continuation" else 0)
        assert entry["log_likelihood_nats"] < 0
        assert entry["picture"] == f"{entry['kind']}.png"
        assert (out / "samples" / entry["picture"]).read_bytes().startswith(b"\x89PNG")
        if entry["kind"] == "continuation":
            (utterance,) = entry["utterances"]
            assert entry["name"] == f"continuation_{utterance}"
            np.testing.assert_array_equal(pcm[:320], open_dump(test).read(utterance, 0, 320))
    tempered = [(entry["name"], entry["temperature"], entry["reference"]) for entry in index[2:6]]
    assert tempered[:2] == [("temperature_0_0.5", 0.5, "prior_0"), ("temperature_0_0.75", 0.75, "prior_0")]
    run(sample, *options, "--prefix_seconds", 9)
    continuation = next((out / "samples").glob("continuation_*.wav"))
    assert len(soundfile.read(continuation)[0]) == 1700 // 2 // 16 * 16 + 800


def test_samples_of_the_adaptive_reference(make_dump, tmp_path):
    dump, out = make_dump("test", [900, 700]), tmp_path / "adaptive" / "samples"
    options = ["--adaptive", "--dump", dump, "--out", out, "--count", 2, "--seconds", 0.05, "--prefix_seconds", 0.02]
    assert run(sample, *options) == 0
    index = json.loads((out / "samples.json").read_text())
    assert [entry["kind"] for entry in index] == ["prior"] * 2 + ["continuation"] * 2
    for entry in index:
        pcm, _ = soundfile.read(out / f"{entry['name']}.wav", dtype="int16")
        (prefix,) = entry["marks"] or [0]
        assert len(pcm) == prefix + 800 and (out / entry["picture"]).exists()
        nats = Adaptive().nats(pcm) - Adaptive().nats(pcm[:prefix])
        assert entry["log_likelihood_nats"] == pytest.approx(nats, abs=1e-6)
    assert run(sample, *options, "--check") == 0


def test_every_kind_of_sample_once(make_dump, tiny_config, tmp_path, monkeypatch):
    paths = make_dump("train", [3000, 2500]), make_dump("valid", [1200, 700, 1500], seed=50)
    config = tiny_config(
        ("model: lstm", "model: cwvae"),
        ("{stack: 16, hidden: 12, layers: 1}", "{stride: 8, levels: 3, factor: 2, width: 6}"),
        ("steps: 12", "steps: 4"),
    )
    out = tmp_path / "exp" / "train" / "tiny" / "seed1"
    run(train, "--config", config, "--train", paths[0], "--valid", paths[1], "--out", out)
    options = ["--exp", out, "--dump", paths[1], "--out", out / "samples", "--count", 2]
    options += ["--seconds", 0.05, "--prefix_seconds", 0.02]
    assert run(sample, *options) == 0
    index = json.loads((out / "samples" / "samples.json").read_text())
    counts = {"prior": 2, "temperature": 4, "frames": 1, "resampled": 3, "frozen": 3, "continuation": 2}
    counts |= {"reconstruction": 4, "resynthesis": 8, "interpolation": 5}
    assert Counter(entry["kind"] for entry in index) == counts
    names = {entry["name"] for entry in index}
    for entry in index:
        pcm, _ = soundfile.read(out / "samples" / f"{entry['name']}.wav", dtype="int16")
        shortest = entry["kind"] in ("resynthesis", "interpolation", "reconstruction")
        assert len(pcm) in ((700, 800) if shortest else (800, 800 + 320))
        assert entry["description"] and entry.get("reference", "prior_0") in names
        level = f"_{entry['level']}" if entry["kind"] in ("resampled", "frozen") else ""
        assert entry["picture"] == f"{entry['kind']}{level}.png"
        assert (out / "samples" / entry["picture"]).read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("speechlvm.bin.sample._sample", lambda arguments: pytest.fail("sampled again"))
    assert run(sample, *options) == 0


TABLE = """
table: T1
title: a test
unit: bits_per_frame
coding: mulaw
sets: [test]
rows:
  - {s: 16, system: LSTM, configuration: tiny, experiment: tiny, published: {test: 13.5}}
  - {s: 1, system: VRNN, experiment: vrnn, published: {test: 11.0}}
"""


def test_report_shows_ours_beside_the_published(trained, tmp_path):
    root, out, training, test = trained
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "T1.yaml").write_text(TABLE)
    results = tmp_path / "RESULTS.md"
    run(report, "--exp", root, "--tables", tables, "--out", results)  # nothing scored yet: blanks
    assert "| VRNN" in results.read_text()
    run(score, "--exp", out, "--dump", test, "--out", out / "score_test")
    flac = root / "flac" / "score_test"
    run(baseline, "--name", "flac", "--train", training, "--dump", test, "--out", flac)
    run(report, "--exp", root, "--tables", tables, "--out", results)
    text = results.read_text()
    bits = json.loads((out / "score_test" / "result.json").read_text())["bits_per_frame"]
    line = next(line for line in text.splitlines() if line.startswith("| 16 ") and "LSTM" in line)
    assert "| 13.50 " in line and f"{bits:.3f}" in line and f"{bits - 13.5:+.3f}" in line
    blank = next(line for line in text.splitlines() if "VRNN" in line)
    assert [cell.strip() for cell in blank.split("|")][4:7] == ["11.00", "", ""]
    figures = {path.name for path in (root / "figures").iterdir()}
    assert figures == {
        f"{n}.{e}" for n in ("bits_test_mulaw", "bits_test_pcm", "learning_curves") for e in ("png", "pdf")
    }
    (tables / "T1.yaml").write_text(TABLE.replace("unit: bits_per_frame", "unit: bits"))
    with pytest.raises(ConfigError, match=r"T1.yaml: unit: .*'bits'"):
        run(report, "--exp", root, "--tables", tables, "--out", results)


def test_an_untrained_experiment_says_which_stage_is_missing(tmp_path, make_dump):
    dump = make_dump("test", [100])
    for program in (score, sample):
        with pytest.raises(UserError, match=r"none: no trained model; run stage 3 \(train\)$"):
            run(program, "--exp", tmp_path / "none", "--dump", dump, "--out", tmp_path / "s")


def test_a_density_has_nats_and_no_bits(make_dump, tiny_config, tmp_path):
    paths = make_dump("train", [3000, 2500]), make_dump("valid", [1200], seed=50)
    config = tiny_config(
        ("coding: mulaw", "coding: normalised"),
        ("distribution: dmol", "distribution: gaussian"),
        ("{components: 3}", "{minimum_std: 0.01}"),
    )
    root = tmp_path / "exp" / "train"
    out = root / "tiny" / "seed1"
    run(train, "--config", config, "--train", paths[0], "--valid", paths[1], "--out", out)
    run(score, "--exp", out, "--dump", paths[1], "--out", out / "score_valid")
    result = json.loads((out / "score_valid" / "result.json").read_text())
    assert result["unit"] == "density" and result["bits_per_frame"] is None
    assert result["nats_per_utterance"] == pytest.approx(result["nats_per_frame"] * 1200)
    assert result["distribution"] == {"name": "gaussian", "minimum_std": 0.01}
    options = ["--count", 1, "--seconds", 0.05, "--prefix_seconds", 0.02]
    run(sample, "--exp", out, "--dump", paths[1], "--out", out / "samples", *options)


def test_a_signal_does_not_damage_memory_while_an_lstm_trains(tmp_path):
    code = """
import signal, torch
from speechlvm.bin.cli import run_main
torch.set_num_threads(1)
lstm, x = torch.nn.LSTM(128, 128, batch_first=True), torch.zeros(8, 256, 128)
def train():
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
    for _ in range(40):
        lstm(x)[0].sum().backward()
    signal.setitimer(signal.ITIMER_REAL, 0)
run_main(train)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")  # -6, "corrupted size vs. prev_size"


def test_a_signal_is_an_interrupt_and_errors_of_the_system_are_one_line(tmp_path):
    def stopped(_):
        with atomic_write(tmp_path / "file"):
            signal.raise_signal(signal.SIGTERM)

    def failing(_):
        raise PermissionError(13, "Permission denied", "/closed/file")

    done = call(stopped)
    assert done.returncode == 75 and done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
    done = call(failing)
    told = "error: /closed/file: Permission denied; check its permissions\n"
    assert (done.returncode, done.stderr) == (1, told)
    # where errors cannot be written: not Python's 120
    code = "from speechlvm.bin.cli import run_main\nrun_main(lambda: open('/nowhere/file'))"
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-c", code], stderr=full).returncode == 1
