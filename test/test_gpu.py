"""What test/gpu.sh does with its items; the items themselves take minutes, and are for GPUs."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def measure(monkeypatch):
    specification = importlib.util.spec_from_file_location("measure", ROOT / "test/gpu/measure.py")
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "measure", module)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def run(measure, monkeypatch, tmp_path, capsys):
    """run(items, minutes) -> status, and the first word and the rest that is said about each item."""

    def of(items, minutes):
        made = [measure.Item(name, ("-c", code), seconds=0.0, **options) for name, code, options in items]
        monkeypatch.setattr(measure, "items", lambda *_: iter(made))
        monkeypatch.setattr(sys, "argv", ["gpu.sh", "--device", "cpu", "--out", str(tmp_path), "--minutes", minutes])
        status = measure.main()
        lines = [line.split(" s  ", 1)[1] for line in capsys.readouterr().out.splitlines() if " s  " in line]
        return status, {line.split(":")[0].split()[1]: (line.split()[0], line.split(": ", 1)[1]) for line in lines}

    return of


RESULT = """print("working"); print('{"bits": 7}')"""


def test_an_item_that_fails_does_no_harm_to_others_and_is_tried_again(run):
    items = [
        ("stalls", "import time; print('here', flush=True); time.sleep(60)", {}),
        ("fails", "raise SystemExit('no kernel')", {"timed": False}),
        ("mute", "pass", {"timed": False}),
        ("works", RESULT, {"timed": False}),
    ]
    status, said = run(items, "0.3")  # a third of it is enough to start Python, even on a busy machine
    assert status == 1
    assert said["stalls"] == ("FAILED", "took too long") and said["fails"] == ("FAILED", "no kernel")
    assert said["mute"][0] == "FAILED" and said["works"] == ("done", "bits 7")
    repaired = [(name, RESULT, options) for name, _, options in items]
    repaired[3] = ("works", "raise SystemExit('again')", {})
    assert run(repaired, "1") == (0, {name: ("kept" if name == "works" else "done", "bits 7") for name in said})


def test_what_there_is_no_time_for_is_left(run):
    assert run([("first", RESULT, {}), ("second", RESULT, {})], "0") == (0, {})


def test_a_step_is_related_to_the_limit_that_is_closer(measure):
    rates = {"gemm_bf16_gflops": 1000.0, "gemm_gflops": 100.0, "copied_gbytes": 10.0, "precision": "float32"}
    found = {**rates, "seconds": 0.2, "gflop": 10.0, "gbytes": 0.5}
    assert measure.reached(found) == 0.5  # 0.1 s of products
    assert measure.reached({**found, "precision": "bfloat16"}) == 0.25  # 0.05 s of copies


def test_the_items_are_measurements_that_can_be_made(measure, tmp_path):
    on_gpu, on_cpu = (list(measure.items(device, 10, tmp_path)) for device in ("cuda", "cpu"))
    names = [item.name for item in on_gpu]
    assert names == [item.name for item in on_cpu] and len(set(names)) == len(names)
    assert sum(name.startswith("train ") for name in names) == 18
    (wavenet,) = (item for item in on_gpu if item.name == "train wavenet_s1_c96")
    assert {"--batch=2", "--frames=16000", "--precision=bfloat16", "--ngpu=1"} <= set(wavenet.words)
