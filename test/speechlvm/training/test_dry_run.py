"""The dry run: it names what does not fit, and training computes the same bits with and without it."""

import pytest
import torch

from speechlvm.bin import train
from speechlvm.data.dumps import open_dump
from speechlvm.data.dumps.dataset import DataSettings, plan_batches
from speechlvm.experiment.checkpoint import Checkpoints
from speechlvm.scoring import score
from speechlvm.training import trainer
from speechlvm.training.dry_run import check_step_fits
from speechlvm.utils.errors import ConfigError, UserError

BATCH = r"\(u01, u03, u00, \.\.\.: 4 x 52 frames\) does not fit in memory"


def allocate_too_much(batch):
    torch.empty(1 << 55)


def raising(error):
    def run(batch):
        raise error

    return run


@pytest.fixture
def try_step(make_dump):
    """try_step(backward, optimizer, **settings): `check_step_fits` on four utterances."""
    dump = open_dump(make_dump("train", [30, 52, 21, 50]))

    def of(backward, optimizer=None, **conf):
        optimizer = optimizer or torch.optim.Adam([torch.nn.Parameter(torch.zeros(3))])
        settings = DataSettings(**conf)
        batches = plan_batches({name: record.frames for name, record in dump.records.items()}, settings, 1, 0)
        check_step_fits(backward, optimizer, dump, batches, settings)

    return of


def test_it_takes_the_largest_batch_and_leaves_no_trace(try_step):
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer, shapes, generator = torch.optim.Adam([weight]), [], torch.get_rng_state()

    def backward(batch):
        shapes.append(tuple(batch.data.shape[:2]))
        (weight * torch.rand(3)).sum().backward()

    try_step(backward, optimizer, batch_frames=104)
    assert shapes == [(2, 52)]
    assert torch.equal(torch.get_rng_state(), generator) and weight.grad is None and not optimizer.state
    assert torch.equal(weight, torch.zeros(3))


@pytest.mark.parametrize(
    "backward",
    [allocate_too_much, raising(MemoryError()), raising(torch.OutOfMemoryError("CUDA out of memory. Tried to ..."))],
)
def test_what_does_not_fit_is_named(try_step, backward):
    with pytest.raises(
        UserError, match=rf"{BATCH}; lower --data.batch_frames \(now 300\) or --max_frames \(now 300\)$"
    ):
        try_step(backward, batch_frames=300)


def test_the_setting_that_bounds_rows_is_named(try_step):
    with pytest.raises(UserError, match=r"or --max_frames \(now 40\)$"):
        try_step(allocate_too_much, batch_frames=160, max_frames=40)
    with pytest.raises(UserError, match=r"or --data.segment_frames \(now 40\)$"):
        try_step(allocate_too_much, batch_frames=160, segment_frames=40)


def test_other_errors_are_not_taken_for_a_shortage(try_step):
    with pytest.raises(RuntimeError, match="shapes do not match"):
        try_step(raising(RuntimeError("shapes do not match")), batch_frames=300)


def _train(tiny_config, make_dump, out):
    # VRNN: the loss draws noise
    config = tiny_config(
        ("steps: 12", "steps: 2"),
        ("lstm\nmodel_conf: {stack: 16, hidden: 12, layers: 1}", "vrnn\nmodel_conf: {stack: 16, hidden: 8}"),
    )
    sets = ["--train", str(make_dump("train", [3000, 2000])), "--valid", str(make_dump("valid", [1200]))]
    assert train.main(["--config", str(config), *sets, "--out", str(out)]) == 0


def test_validation_that_does_not_fit_is_named_before_the_first_step(tiny_config, make_dump, tmp_path, monkeypatch):
    monkeypatch.setattr(score, "score_batch", lambda *arguments: allocate_too_much(None))
    monkeypatch.setattr(trainer.Trainer, "_step", lambda *arguments: pytest.fail("a step was taken"))
    with pytest.raises(UserError, match=r"validation set does not fit in memory; lower --max_frames \(now 512000\)$"):
        _train(tiny_config, make_dump, tmp_path / "exp")


def test_training_is_the_same_to_the_bit_without_it(tiny_config, make_dump, tmp_path, monkeypatch):
    contents, tried, original = [], [], trainer.check_step_fits
    monkeypatch.setattr(trainer, "check_step_fits", lambda *given: (tried.append(given), original(*given)))
    for name in ("with", "without"):
        _train(tiny_config, make_dump, tmp_path / name)
        monkeypatch.setattr(trainer, "check_step_fits", lambda *given: None)
        content = Checkpoints(tmp_path / name / "checkpoints").load_latest()
        state = [value for each in content["optimizer"]["state"].values() for value in each.values()]
        scores = [entry["nats_per_frame"] for entry in content["progress"]["history"]]
        contents.append([*content["model"].values(), *state, content["generator"], torch.tensor(scores)])
    assert len(tried) == 1 and all(torch.equal(a, b) for a, b in zip(*contents, strict=True))


def test_the_log_says_how_many_utterances_are_trained_in_pieces(tiny_config, make_dump, tmp_path):
    config = tiny_config(("batch_frames: 4096, segment_frames: 1024", "batch_frames: 4096"), ("steps: 12", "epochs: 1"))
    sets = ["--train", str(make_dump("train", [3000, 2000, 900])), "--valid", str(make_dump("valid", [1200]))]
    given = ["--config", str(config), *sets, "--data.max_frames", "1500"]
    assert train.main([*given, "--out", str(tmp_path / "cut")]) == 0
    log = (tmp_path / "cut" / "train.log").read_text()
    assert "2 of 3 utterances are longer than 1500 frames and are trained in segments" in log
    with pytest.raises(ConfigError, match=r"data.max_frames \(was 1500, now 700\)"):
        train.main([*given[:-1], "700", "--out", str(tmp_path / "cut")])
