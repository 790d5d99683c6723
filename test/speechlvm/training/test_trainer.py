import json
import math
import shutil
import signal
from functools import partial

import pytest
import torch

from speechlvm.bin import train as program
from speechlvm.experiment.checkpoint import Checkpoints
from speechlvm.experiment.load import load_experiment
from speechlvm.training import trainer as trainer_module
from speechlvm.utils.errors import ConfigError, Interrupted, UserError
from speechlvm.utils.lock import locked


@pytest.fixture
def dumps(make_dump):
    return make_dump("train", [3000, 2500, 2000, 1500, 2200]), make_dump("valid", [1200, 900], seed=50)


def _arguments(config, dumps, out, *extra):
    train, valid = dumps
    words = ["--config", config, "--train", train, "--valid", valid, "--out", out, "--seed", 3, *extra]
    return [str(word) for word in words]


def _train(*arguments):
    return program.main(_arguments(*arguments))


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """Where the first test that needs it trains what the others read or copy."""
    return tmp_path_factory.mktemp("trained") / "exp"


@pytest.fixture
def whole(trained_once, tiny_config, dumps):
    """An experiment of 12 steps that nothing has interrupted; not to be changed."""
    if not trained_once.exists():
        _train(tiny_config(), dumps, trained_once)
    return trained_once


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of it."""
    return shutil.copytree(whole, tmp_path / "exp")


def _content(out):
    """Model, optimiser, global generator and progress of the last checkpoint."""
    content = Checkpoints(out / "checkpoints").load_latest()
    return {key: content[key] for key in ("model", "optimizer", "generator", "progress")}


def _history(out):
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def _same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a if key != "seconds")
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_learns_and_leaves_what_later_stages_need(tiny_config, make_dump, tmp_path, precision):
    # validation on the training data shows that optimisation works, with little data
    dumps, out = (make_dump("train", [4000, 3000]), make_dump("valid", [4000, 3000])), tmp_path / "exp"
    config = tiny_config(
        ("stack: 16", "stack: 1"), ("peak: 0.005", "peak: 0.02"), ("every_steps: 4", "every_steps: 50"),
        ("gradient_clip: 1.0", f"gradient_clip: 1.0\n  precision: {precision}"), ("steps: 12", "steps: 100"),
    )  # fmt: skip
    assert _train(config, dumps, out) == 0
    history = _history(out)
    assert [entry["step"] for entry in history] == [0, 50, 100]
    assert history[-1]["bits_per_frame"] < history[0]["bits_per_frame"] - 0.1
    experiment = load_experiment(out)
    assert experiment.provenance.seed == 3 and experiment.provenance.step > 0
    assert (out / "train.log").exists() and any((out / "tb").iterdir())


def test_in_float16_steps_with_infinite_gradients_are_left_out(tiny_config, dumps, tmp_path, monkeypatch):
    # as on a GPU without bfloat16: until the scale of the loss is small enough, and likewise when killed on the way
    monkeypatch.setattr(trainer_module, "half_precision", lambda *_: torch.float16)
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**40))
    config = tiny_config(
        ("model: lstm", "model: wavenet"),
        ("{stack: 16, hidden: 12, layers: 1}", "{stack: 16, channels: 8, layers_per_block: 2, blocks: 1}"),
        ("gradient_clip: 1.0", "gradient_clip: 1.0\n  precision: bfloat16"),
    )  # fmt: skip
    for words in (["--limits.steps", "1"], [], ["--limits.steps", "60"]):
        _train(config, dumps, tmp_path / "exp", *words)
        content = Checkpoints(tmp_path / "exp" / "checkpoints").load_latest()
        if words == ["--limits.steps", "1"]:
            assert content["scaler"]["scale"] == 2.0**39 and _steps_taken(content) == {0}
    taken = _steps_taken(content)
    left_out = 40 - math.log2(content["scaler"]["scale"])
    assert taken == {60 - left_out} and 2 < left_out < 58
    assert all(torch.isfinite(value).all() for value in content["model"].values())


def _steps_taken(checkpoint):
    return {float(of_weight["step"]) for of_weight in checkpoint["optimizer"]["state"].values()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fivo_as_the_objective_learns(tiny_config, make_dump, tmp_path, precision):
    dumps, out = (make_dump("train", [4000, 3000]), make_dump("valid", [4000, 3000])), tmp_path / "exp"
    config = tiny_config(
        ("model: lstm", "model: vrnn"),
        ("{stack: 16, hidden: 12, layers: 1}", "{stack: 64, hidden: 8, latent: 2, state: 8}"),
        ("gradient_clip: 1.0", f"gradient_clip: 1.0\n  particles: 4\n  precision: {precision}"),
        ("every_steps: 4", "every_steps: 20"), ("steps: 12", "steps: 20"),
    )  # fmt: skip
    assert _train(config, dumps, out) == 0
    first, last = (entry["bits_per_frame"] for entry in _history(out))
    assert last < first - 0.03
    with pytest.raises(ConfigError, match="training.particles"):
        _train(config, dumps, out, "--training.particles", "8")


def test_the_first_bits_are_those_of_the_marginal(whole):
    assert _history(whole)[0]["bits_per_frame"] < 16.0


def test_complete_is_a_no_op_and_raised_limits_continue(tiny_config, dumps, copied, capsys):
    stamp = (copied / "done.json").stat().st_mtime_ns
    _train(tiny_config(), dumps, copied)
    assert "complete" in capsys.readouterr().out and (copied / "done.json").stat().st_mtime_ns == stamp
    _train(tiny_config(), dumps, copied, "--limits.steps", "16")
    assert Checkpoints(copied / "checkpoints").steps()[-1] == 16


def test_a_larger_limit_says_that_the_rate_of_a_cosine_rises(tiny_config, dumps, copied):
    _train(tiny_config(), dumps, copied, "--limits.steps", "20")
    [line] = [line for line in (copied / "train.log").read_text().splitlines() if "rises" in line]
    assert "the learning rate rises from 8.5e-05 to 0.0017, as its schedule now spans a larger limit" in line


def test_a_final_decay_is_taken_back_by_a_larger_limit(tiny_config, dumps, tmp_path):
    config = tiny_config(("schedule: cosine", "schedule: constant-decay, decay_share: 0.25"))
    _train(config, dumps, tmp_path / "at once", "--limits.steps", "20")
    _train(config, dumps, tmp_path / "continued")
    assert 9 in Checkpoints(tmp_path / "continued" / "checkpoints").steps()
    _train(config, dumps, tmp_path / "continued", "--limits.steps", "20")
    log = (tmp_path / "continued" / "train.log").read_text()
    assert "continuing from step 9, before the decay of the learning rate" in log and "rises" not in log
    found = [_content(tmp_path / name) for name in ("at once", "continued")]
    assert all(_same(found[0][key], found[1][key]) for key in ("model", "optimizer", "generator"))
    best = [load_experiment(tmp_path / name).provenance.step for name in ("at once", "continued")]
    assert best[0] == best[1]


def test_same_seed_same_run_other_seed_other_run(tiny_config, dumps, whole, tmp_path):
    torch.seed()  # as Python starts: another one each time
    _train(tiny_config(), dumps, tmp_path / "same")
    _train(tiny_config(), dumps, tmp_path / "other", "--seed", "4")
    assert _same(_content(tmp_path / "same"), _content(whole))
    assert not _same(_content(tmp_path / "other")["model"], _content(whole)["model"])


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("accumulate", [1, 2])
def test_killed_and_started_again_ends_bit_identical(tiny_config, dumps, tmp_path, monkeypatch, accumulate):
    config = tiny_config(("gradient_clip: 1.0", f"gradient_clip: 1.0\n  accumulate: {accumulate}"))
    _train(config, dumps, tmp_path / "whole")
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)
    original, kills = trainer_module.Trainer._step, [1, 4, 5, 9]

    def step(self, batches):
        if self.progress.step in kills:
            kills.remove(self.progress.step)
            raise _Killed  # as SIGKILL: nothing is saved on the way out
        return original(self, batches)

    monkeypatch.setattr(trainer_module.Trainer, "_step", step)
    for _ in range(4):
        with pytest.raises(_Killed):
            _train(config, dumps, tmp_path / "killed")
    _train(config, dumps, tmp_path / "killed")
    assert not kills and _same(_content(tmp_path / "whole"), _content(tmp_path / "killed"))
    assert len(_history(tmp_path / "killed")) == 4


@pytest.mark.parametrize("wrong", ["killed_before_a_checkpoint_is_in_place", "killed_before_the_best_is_marked"])
def test_killed_while_saving(tiny_config, dumps, whole, tmp_path, train_together, wrong):
    statuses, lines = train_together(_arguments(tiny_config(), dumps, tmp_path / "exp"), 1, wrong)
    assert statuses == [-signal.SIGKILL], lines
    assert list((tmp_path / "exp" / "checkpoints").glob(".*.tmp"))
    (tmp_path / "exp" / "checkpoints" / "best.json").unlink(missing_ok=True)  # as if the last step, too, were the best
    _train(tiny_config(), dumps, tmp_path / "exp")
    assert _same(_content(whole), _content(tmp_path / "exp"))
    assert not list((tmp_path / "exp" / "checkpoints").glob(".*.tmp"))
    assert load_experiment(tmp_path / "exp").provenance.step == load_experiment(whole).provenance.step


def test_signals_save_at_the_next_step(tiny_config, dumps, whole, tmp_path, monkeypatch):
    original, numbers = trainer_module.Trainer._step, {2: "TERM", 5: "INT", 6: "USR1", 8: "USR2"}

    def step(self, batches):
        if name := numbers.pop(self.progress.step, None):
            signal.raise_signal(getattr(signal, f"SIG{name}"))
        return original(self, batches)

    monkeypatch.setattr(trainer_module.Trainer, "_step", step)
    for after, name in list(numbers.items()):
        with pytest.raises(Interrupted, match=f"stopped by SIG{name} after step {after + 1}; run the same command"):
            _train(tiny_config(), dumps, tmp_path / "stopped")
        assert Checkpoints(tmp_path / "stopped" / "checkpoints").steps()[-1] == after + 1
    _train(tiny_config(), dumps, tmp_path / "stopped")
    assert _same(_content(whole), _content(tmp_path / "stopped"))


def test_accumulation_equals_one_large_batch(tiny_config, dumps, tmp_path):
    # one step over all five utterances, in one batch or in pieces: the same gradient up to rounding
    whole = tiny_config(("batch_frames: 4096, segment_frames: 1024", "batch_frames: 16000"), ("steps: 12", "steps: 1"))
    _train(whole, dumps, tmp_path / "whole")
    pieces = tiny_config(
        ("batch_frames: 4096, segment_frames: 1024", "batch_frames: 3000"),
        ("steps: 12", "steps: 1"),
        ("gradient_clip: 1.0", "gradient_clip: 1.0\n  accumulate: 5"),
        name="pieces.yaml",
    )
    _train(pieces, dumps, tmp_path / "pieces")
    a, b = (_content(tmp_path / name)["optimizer"] for name in ("whole", "pieces"))
    for x, y in zip(a["state"].values(), b["state"].values(), strict=True):
        torch.testing.assert_close(x["exp_avg"], y["exp_avg"], rtol=1e-3, atol=1e-6)


def test_other_settings_under_an_existing_experiment_are_refused(tiny_config, dumps, copied, make_dump):
    out = copied
    with pytest.raises(ConfigError, match=r"model_conf.hidden \(was 12, now 8\).*--tag"):
        _train(tiny_config(), dumps, out, "--model_conf.hidden", "8")
    with pytest.raises(ConfigError, match="seed"):
        _train(tiny_config(), dumps, out, "--seed", "9")
    with pytest.raises(ConfigError, match="train"):
        _train(tiny_config(), (make_dump("train2", [3000]), dumps[1]), out)


def test_a_loss_that_is_not_finite_stops_with_names(tiny_config, dumps, tmp_path, monkeypatch):
    original = trainer_module.objective
    calls = []

    def objective(*arguments, **options):
        calls.append(None)
        return original(*arguments, **options) * (float("nan") if len(calls) == 7 else 1.0)

    monkeypatch.setattr(trainer_module, "objective", objective)
    monkeypatch.setattr(trainer_module, "check_step_fits", lambda *_: None)  # it computes objectives, too
    with pytest.raises(UserError, match=r"step 7: the loss is nan on u0\d.*last good checkpoint: .*step-00000004.pt"):
        _train(tiny_config(), dumps, tmp_path / "exp")
    assert not (tmp_path / "exp" / "done.json").exists()
    assert all(torch.isfinite(value).all() for value in _content(tmp_path / "exp")["model"].values())


def test_two_runs_in_one_directory(tiny_config, dumps, tmp_path):
    with locked(tmp_path / "exp"), pytest.raises(UserError, match=r"in use by .* process \d+ since"):
        _train(tiny_config(), dumps, tmp_path / "exp")


def test_early_stopping(tiny_config, dumps, tmp_path):
    config = tiny_config(("peak: 0.005", "peak: 1.0e-12"), ("every_steps: 4", "every_steps: 4, patience: 3"))
    _train(config, dumps, tmp_path / "exp", "--limits.steps", "400")
    stopped = Checkpoints(tmp_path / "exp" / "checkpoints").steps()[-1]
    assert stopped < 400 and "converged: no new best in 3 validations" in (tmp_path / "exp" / "train.log").read_text()
    for steps in (stopped - 4, 400):  # patience survives a restart
        _train(config, dumps, tmp_path / "twice", "--limits.steps", str(steps))
    assert Checkpoints(tmp_path / "twice" / "checkpoints").steps()[-1] == stopped
    _train(config, dumps, tmp_path / "exp", "--limits.steps", "400", "--validation.patience", "4")
    assert Checkpoints(tmp_path / "exp" / "checkpoints").steps()[-1] > stopped


def test_weights_of_another_run(tiny_config, dumps, whole, tmp_path):
    config = tiny_config(("gradient_clip: 1.0", f"gradient_clip: 1.0\n  initialise_from: {whole}"))
    _train(config, dumps, tmp_path / "second", "--limits.steps", "1")
    best = json.loads((whole / "checkpoints" / "best.json").read_text())["validation_nats_per_frame"]
    assert _history(tmp_path / "second")[0]["nats_per_frame"] == best


@pytest.mark.parametrize("words", [["--nonsense", "1"], ["nonsense"], ["--limits.steps"]])
def test_usage(tiny_config, dumps, tmp_path, words, capsys):
    with pytest.raises(SystemExit) as error:
        _train(tiny_config(), dumps, tmp_path / "exp", *words)
    assert error.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_checkpoint_of_another_experiment_of_the_same_shapes(tiny_config, dumps, copied):
    out = copied
    config = out / "config.yaml"
    config.write_text(config.read_text().replace("coding: mulaw", "coding: mulaw-pcm"))
    with pytest.raises(UserError, match="checkpoint of another experiment: coding was 'mulaw'"):
        load_experiment(out)
    config.unlink()
    with pytest.raises(UserError, match="coding was 'mulaw'"):
        _train(tiny_config(("coding: mulaw", "coding: mulaw-pcm")), dumps, out)


def test_a_damaged_best_checkpoint_is_replaced_as_the_message_says(tiny_config, dumps, copied):
    found = Checkpoints(copied / "checkpoints")
    damaged = found.path(found.best_step())
    damaged.write_bytes(b"x")
    with pytest.raises(UserError, match=r"remove it and run stage 3 \(train\) again"):
        load_experiment(copied)
    damaged.unlink()
    _train(tiny_config(), dumps, copied)
    assert found.best_step() in found.steps()
    load_experiment(copied)


def test_the_best_checkpoint_is_marked_once(tiny_config, dumps, tmp_path, monkeypatch):
    original, marked = Checkpoints.mark_best, []

    def mark_best(self, step, nats_per_frame):
        marked.append(step)
        original(self, step, nats_per_frame)

    monkeypatch.setattr(Checkpoints, "mark_best", mark_best)
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)  # a checkpoint at every step
    _train(tiny_config(), dumps, tmp_path / "exp")
    assert marked == sorted(set(marked)) and set(marked) <= {0, 4, 8, 12}


def test_an_incomplete_dump_is_refused(tiny_config, dumps, tmp_path):
    (dumps[1] / "done.json").unlink()
    with pytest.raises(UserError, match="valid: not a complete dump; run stage 2"):
        _train(tiny_config(), dumps, tmp_path / "exp")
