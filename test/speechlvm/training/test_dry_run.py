"""The dry run: it says in one line what would not fit, and leaves no trace in training."""

import logging
import re

import pytest
import torch

from speechlvm.bin import train
from speechlvm.data.dumps import open_dump
from speechlvm.data.dumps.dataset import DataSettings, plan_batches
from speechlvm.distributions import build_distribution
from speechlvm.experiment.checkpoint import Checkpoints
from speechlvm.models import build_model
from speechlvm.observation import AudioObservation, Statistics
from speechlvm.scoring.accounting import objective
from speechlvm.scoring.score import score_batch
from speechlvm.training import dry_run, trainer
from speechlvm.utils.errors import ConfigError, UserError

LENGTHS = [30000, 52000, 21000, 50000]
CPU = torch.device("cpu")


@pytest.fixture
def trial(make_dump):
    """(backward, model, optimizer, dump, observation); a tensor of the largest batch is too large for a heap's gaps."""
    observation = AudioObservation("mulaw", Statistics(0.0, 0.1))
    distribution = build_distribution("dmol", {"components": 20}, observation)
    torch.manual_seed(0)
    model = build_model("lstm", {"stack": 16, "hidden": 32}, 1, distribution)

    def backward(batch):
        torch.rand(1)  # a model that draws from the global generator
        bound = model.score(
            observation.inputs(batch.data, batch.lengths), observation.target(batch.data), batch.lengths
        )
        objective(bound, batch.frames).backward()

    return backward, model, torch.optim.Adam(model.parameters()), open_dump(make_dump("train", LENGTHS)), observation


def _try(trial, **conf):
    backward, _, optimizer, dump, _ = trial
    settings = DataSettings(**conf)
    batches = plan_batches({name: record.frames for name, record in dump.records.items()}, settings, 1, 0)
    dry_run.check_step_fits(backward, optimizer, dump, batches, settings)


def test_what_fits_leaves_no_trace(trial, caplog):
    _, model, optimizer, *_ = trial
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    with caplog.at_level(logging.INFO):
        _try(trial, batch_frames=120000)
    assert re.search(r"largest batch \(u.*: \d x \d+ frames\): 0\.\d+ GB of memory, \d+\.\d+ GB available", caplog.text)
    assert torch.equal(torch.get_rng_state(), generator) and not optimizer.state
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize(
    ("conf", "remedy"),
    [
        ({}, r"--data.batch_frames \(now 160000\) or --max_frames \(now 160000\)"),
        ({"max_frames": 40000}, r"--data.batch_frames \(now 160000\) or --max_frames \(now 40000\)"),
        ({"segment_frames": 40000}, r"--data.batch_frames \(now 160000\) or --data.segment_frames \(now 40000\)"),
    ],
)
def test_what_does_not_fit_is_named(trial, monkeypatch, conf, remedy):
    monkeypatch.setattr(dry_run, "available_bytes", lambda device, sharing=1: 30_000_000)
    shown = r"u\d\d, .*\d x \d+ frames: the largest batch of the epoch needs about 0\.\d+ GB of memory, 0\.03 GB are "
    with pytest.raises(UserError, match=shown + "available; lower " + remedy) as caught:
        _try(trial, batch_frames=160000, **conf)
    assert float(re.search("about ([0-9.]+) GB", str(caught.value))[1]) > 0.03
    monkeypatch.undo()
    _try(trial, batch_frames=16000)


def test_the_estimate_is_what_is_really_taken(trial, monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        _try(trial, batch_frames=160000)
    taken = float(re.search(r"([0-9.]+) GB of memory", caplog.text)[1])
    monkeypatch.setattr(dry_run, "available_bytes", lambda device, sharing=1: 30_000_000)
    with pytest.raises(UserError) as caught:
        _try(trial, batch_frames=160000)
    # so little is taken here that gaps in the heap count
    assert taken / 3 <= float(re.search("about ([0-9.]+) GB", str(caught.value))[1]) <= 4 * taken


def test_what_the_optimiser_will_keep_is_counted(make_dump, caplog):
    weights = torch.nn.Parameter(torch.zeros(10_000_000))  # 40 MB, their gradient and two moments as much each
    optimizer = torch.optim.Adam([weights])
    trial = (lambda batch: weights.sum().backward(), None, optimizer, open_dump(make_dump("train", [100])), None)
    with caplog.at_level(logging.INFO):
        _try(trial, batch_frames=200)
        weights.grad = torch.ones_like(weights)
        optimizer.step()  # the moments are there now, and not counted again
        _try(trial, batch_frames=200)
    first, again = (float(value) for value in re.findall(r"([0-9.]+) GB of memory", caplog.text))
    assert 0.1 <= first <= 0.15 and again <= 0.06


def test_a_gpu_that_is_full_is_a_shortage():
    with pytest.raises(dry_run.Shortage), dry_run._shortages():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def test_training_is_the_same_to_the_bit_without_it(tiny_config, make_dump, tmp_path, monkeypatch):
    config = tiny_config(("steps: 12", "steps: 2"))
    sets = ["--train", str(make_dump("train", [3000, 2000])), "--valid", str(make_dump("valid", [1200]))]
    weights = []
    for name in ("with", "without"):
        assert train.main(["--config", str(config), *sets, "--out", str(tmp_path / name)]) == 0
        found = Checkpoints(tmp_path / name / "checkpoints")
        content = found.load(found.steps()[-1])
        weights.append([*content["model"].values(), content["generator"]])
        monkeypatch.setattr(trainer, "check_step_fits", lambda *arguments: None)
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_the_log_says_how_many_utterances_are_trained_in_pieces(tiny_config, make_dump, tmp_path):
    config = tiny_config(("batch_frames: 4096, segment_frames: 1024", "batch_frames: 4096"), ("steps: 12", "epochs: 1"))
    sets = ["--train", str(make_dump("train", [3000, 2000, 900])), "--valid", str(make_dump("valid", [1200]))]
    given = ["--config", str(config), *sets, "--data.max_frames", "1500"]
    assert train.main([*given, "--out", str(tmp_path / "cut")]) == 0
    log = (tmp_path / "cut" / "train.log").read_text()
    assert "2 of 3 utterances are longer than 1500 frames and are trained in pieces" in log
    with pytest.raises(ConfigError, match=r"data.max_frames \(was 1500, now 700\)"):
        train.main([*given[:-1], "700", "--out", str(tmp_path / "cut")])


def test_other_errors_are_not_taken_for_a_shortage(trial, monkeypatch):
    def broken(batch):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        _try((broken, *trial[1:]), batch_frames=160000)


def test_validation_that_does_not_fit_is_named(trial, monkeypatch):
    _, model, _, dump, observation = trial
    monkeypatch.setattr(dry_run, "available_bytes", lambda device, sharing=1: 10_000_000)
    expected = r"u01, u03, u00, ...: 4 x 52000 frames: scoring .* about .* lower --max_frames \(now 512000\)"

    def score(batch):
        return score_batch(model.eval(), observation, batch, 65536)

    with pytest.raises(UserError, match=expected):
        dry_run.check_scoring_fits(score, dump, sorted(dump.records), CPU, None)
    dry_run.check_scoring_fits(score, dump, sorted(dump.records), CPU, 4000)


def test_control_groups_of_both_versions_bound_what_is_available(tmp_path):
    for name, files in {
        "memory/slurm/job_1": {"memory.limit_in_bytes": 1000, "memory.usage_in_bytes": 300, "total_inactive_file": 40},
        "memory/slurm": {"memory.limit_in_bytes": 900, "memory.usage_in_bytes": 800, "total_inactive_file": 0},
        "user/step": {"memory.max": 500, "memory.current": 600, "inactive_file": 50},
        "user": {"memory.max": "max", "memory.current": 600, "inactive_file": 0},
    }.items():
        directory = tmp_path / name
        directory.mkdir(parents=True, exist_ok=True)
        *limits, (cache, amount) = files.items()
        for file, value in limits:
            (directory / file).write_text(f"{value}\n")
        (directory / "memory.stat").write_text(f"anon 7\n{cache} {amount}\n")
    lines = ["4:memory:/slurm/job_1", "3:cpuset:/", "0::/user/step"]
    assert list(dry_run._left_in_groups(lines, tmp_path)) == [740, 100, 0]
    assert list(dry_run._left_in_groups(["0::/elsewhere"], tmp_path)) == []
