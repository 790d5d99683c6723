import json
import re
import resource
import subprocess
import types

import pytest
import torch

from speechlvm.experiment import checkpoint as module
from speechlvm.experiment.checkpoint import Checkpoints, check_settings, load_tensors, load_weights
from speechlvm.utils.errors import UserError


@pytest.fixture
def checkpoints(tmp_path):
    found = Checkpoints(tmp_path / "checkpoints")
    for step in (10, 20, 30):
        found.save(step, {"model": {"w": torch.full((3,), float(step))}, "progress": {"step": step}})
    return found


def test_the_newest_is_loaded(checkpoints):
    assert checkpoints.steps() == [10, 20, 30]
    assert checkpoints.load_latest()["progress"] == {"step": 30}
    assert Checkpoints(checkpoints.directory / "none").load_latest() is None


def test_pruning_keeps_the_newest_two_and_the_best(checkpoints):
    checkpoints.mark_best(10, -1.5)
    checkpoints.save(40, {"model": {}})
    checkpoints.prune()
    assert checkpoints.steps() == [10, 30, 40]
    assert checkpoints.load_best()["model"]["w"].tolist() == [10.0] * 3


def test_the_only_checkpoint_is_valid_at_each_moment_in_which_it_is_written_over_itself(tmp_path, monkeypatch):
    found = Checkpoints(tmp_path / "checkpoints")
    found.save(0, {"model": {}, "progress": {"age": "old"}})
    original, ages = module.write_json, []

    def write_json(path, value):
        ages.append(found.load(0)["progress"]["age"])
        original(path, value)
        ages.append(found.load(0)["progress"]["age"])

    monkeypatch.setattr(module, "write_json", write_json)
    found.save(0, {"model": {}, "progress": {"age": "new"}})
    assert ages == ["old", "old", "new", "new"]


def test_saving_leaves_nothing_of_killed_processes(checkpoints):
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = [checkpoints.directory / name for name in (f".step-00000030.pt.{dead.pid}.tmp", "step-00000010.pt")]
    left[0].write_bytes(b"half")
    checkpoints.path(10).with_suffix(".json").unlink()  # killed in the middle of prune
    checkpoints.save(40, {"model": {}})
    assert not any(path.exists() for path in left)
    assert checkpoints.steps() == [20, 30, 40]


def test_no_best_yet(checkpoints):
    with pytest.raises(UserError, match="no best checkpoint yet; run stage 3"):
        checkpoints.load_best()


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_a_damaged_newest_checkpoint_is_passed_over(checkpoints, damage, caplog):
    path = checkpoints.path(30)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-20])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    assert checkpoints.load_latest()["progress"] == {"step": 20}
    assert "step-00000030.pt: does not match its manifest" in caplog.text


def test_all_damaged_is_an_error(checkpoints):
    for step in checkpoints.steps():
        checkpoints.path(step).write_bytes(b"x")
    with pytest.raises(UserError, match="no intact checkpoint is left"):
        checkpoints.load_latest()


def test_without_manifest_there_is_no_checkpoint(checkpoints):
    checkpoints.path(30).with_suffix(".json").unlink()
    assert checkpoints.steps() == [10, 20]


def test_other_files_and_formats(tmp_path):
    path = tmp_path / "x.pt"
    path.write_text("hello")
    with pytest.raises(UserError, match="not a checkpoint"):
        load_tensors(path)
    torch.save({"model": {}}, path)
    with pytest.raises(UserError, match="no format number"):
        load_tensors(path)
    torch.save({"format": 99, "speechlvm": "0.9.1"}, path)
    with pytest.raises(UserError, match=r"format 99; speechlvm [\d.]+ reads up to 1; needs speechlvm >= 0\.9\.1$"):
        load_tensors(path)
    for writer in ({}, {"speechlvm": "1; rm -r /"}, {"speechlvm": [1]}):
        torch.save({"format": 99, **writer}, path)
        with pytest.raises(UserError, match="needs a newer speechlvm$"):
            load_tensors(path)


def test_weights_of_another_model_are_named_and_nothing_is_loaded():
    module = torch.nn.Linear(3, 2)
    before = module.weight.detach().clone()
    wrong = {"weight": torch.zeros(2, 4), "other": torch.zeros(1), "bias": torch.zeros(2)}
    expected = re.escape("other (model absent, file (1,)), weight (model (2, 3), file (2, 4))")
    with pytest.raises(UserError, match=expected):
        load_weights(module, wrong, "x.pt")
    with pytest.raises(UserError, match="not finite: bias"):
        load_weights(module, {"weight": torch.zeros(2, 3), "bias": torch.tensor([0.0, float("nan")])}, "x.pt")
    assert torch.equal(module.weight, before)


def test_full_disk_leaves_the_previous_checkpoint(checkpoints):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"step-00000040\.pt.*bytes are free"):
            checkpoints.save(40, {"model": {"w": torch.zeros(9000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoints.steps() == [10, 20, 30]
    assert not list(checkpoints.directory.glob(".*.tmp"))
    assert checkpoints.load_latest()["progress"] == {"step": 30}
    checkpoints.save(40, {"model": {}})
    assert checkpoints.steps()[-1] == 40


def test_cut_files_and_flipped_bits_are_noticed_even_without_checksum(checkpoints, tmp_path):
    whole, path = checkpoints.path(30).read_bytes(), tmp_path / "x.pt"
    for number in range(16):
        path.write_bytes(whole[: len(whole) * number // 16])
        with pytest.raises(UserError, match="^[^\n]*x.pt: not a checkpoint of this project[^\n]*$"):
            load_tensors(path)
        flipped = bytearray(whole)
        flipped[len(whole) * number // 16] ^= 4
        checkpoints.path(30).write_bytes(flipped)
        with pytest.raises(UserError, match=r"step-00000030\.pt: does not match its manifest"):
            checkpoints.load(30)
        path.write_bytes(flipped)
        try:
            assert load_tensors(path)["format"] == 1  # a weight, or nothing that is read
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


NO_OBJECTS = ["[]", "{}", '{"step": "../../x"}', '{"step": -1}', '{"sha256": ["x"]}', "[" * 100_000, "{"]


@pytest.mark.parametrize("text", NO_OBJECTS)
def test_marks_and_manifests_that_are_none(checkpoints, text, caplog):
    (checkpoints.directory / "best.json").write_text(text)
    with pytest.raises(UserError, match=r"checkpoints/best\.json"):
        checkpoints.load_best()
    checkpoints.path(30).with_suffix(".json").write_text(text)
    assert checkpoints.load_latest()["progress"] == {"step": 20} and "step-00000030" in caplog.text
    with pytest.raises(UserError, match="step-00000030"):
        checkpoints.load(30)


def test_what_a_newer_version_wrote_is_not_passed_over(checkpoints):
    path = checkpoints.path(30).with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2, "speechlvm": "0.4.0", "shards": 3}))
    with pytest.raises(UserError, match=r"step-00000030\.json: format 2; .* needs speechlvm >= 0\.4\.0$"):
        checkpoints.load_latest()


def test_parts_and_settings_that_are_missing_or_unreadable():
    config = types.SimpleNamespace(frozen=dict)
    values = {key: kind() for key, kind in module.CONTENT.items()}
    whole = {**values, "frozen": "{}"}
    check_settings(whole, config, "x.pt")
    for key in whole:
        with pytest.raises(UserError, match=rf"^x\.pt: a checkpoint has NoneType as '{key}', expected"):
            check_settings({**whole, key: None}, config, "x.pt")
        with pytest.raises(UserError, match=f"has nothing as '{key}'"):
            check_settings({name: value for name, value in whole.items() if name != key}, config, "x.pt")
    for text in ("", "{", "[1]", "null", "[" * 100_000, "1" * 10_000):
        with pytest.raises(UserError, match=r"^x\.pt: .*(settings are not readable|of another experiment)"):
            check_settings({**whole, "frozen": text}, config, "x.pt")


ODD = {
    "double": (torch.zeros(2, 3, dtype=torch.float64), r"\(2, 3\) float64"),
    "sparse": (torch.zeros(2, 3).to_sparse(), "no plain tensor"),
    "without storage": (torch.zeros(2, 3, device="meta"), "no plain tensor"),
    "transposed": (torch.zeros(3, 2), r"\(3, 2\)"),
    "a list": ([[0.0] * 3] * 2, "no plain tensor"),
    "nothing": (None, "absent"),
}


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("case", ODD)
def test_odd_weights_are_refused_and_nothing_is_loaded(case, tmp_path):
    value, words = ODD[case]
    torch.save({"format": 1, "model": {"weight": value, "bias": torch.ones(2)}}, tmp_path / "x.pt")
    weights, linear = load_tensors(tmp_path / "x.pt")["model"], torch.nn.Linear(3, 2)
    before = {key: each.clone() for key, each in linear.state_dict().items()}
    with pytest.raises(UserError, match=rf"weight \(model \(2, 3\), file {words}\)"):
        load_weights(linear, weights, "x.pt")
    for weights in ([], {1: torch.zeros(1)}):
        with pytest.raises(UserError, match=r"^x\.pt: weights have no names; nothing was loaded$"):
            load_weights(linear, weights, "x.pt")
    assert all(torch.equal(each, before[key]) for key, each in linear.state_dict().items())
