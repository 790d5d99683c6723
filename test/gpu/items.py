"""Comparisons and trainings of measure.py, each a program of its own: python test/gpu/items.py NAME --device cuda ...

The last line of its output is a JSON object. What differs by more than rounding ends with an error of one line.
"""

import argparse
import copy
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

from speechlvm.experiment.load import training_device

ROOT = Path(__file__).resolve().parents[2]
MINI = ROOT / "egs/mini"
DUMP = MINI / "dump/pcm16"
NATS = {"float64": 1e-9, "float32": 1e-4}  # per frame
GRADIENTS = {"float64": 1e-8, "float32": 1e-3}  # of the largest gradient of the same weight
STEPS = 200  # of which the cost is measured, of the slowest clock
NORMALS = 1e-6  # of float32 normals below 6
REPEATED = 1e-3  # nats per frame, on devices that add in any order


def contract(arguments):
    """Every system on the device and on the CPU: bounds, gradients, chunks and samples."""
    import torch

    from speechlvm.modules import fast_chain

    fast_chain.BLOCK = 2  # as these chains are short
    systems = _systems()
    found, wrong = {name: {} for name in NATS}, []
    for key in systems.SYSTEMS:
        tiny = systems.tiny_system(key)
        for name, values in found.items():
            dtype = getattr(torch, name)
            here, there = (_evaluated(tiny, dtype, torch.device(where)) for where in ("cpu", arguments.device))
            largest = {
                "nats": max(_difference(here["terms"][term], there["terms"][term]) for term in here["terms"]),
                "gradients": max(
                    _difference(value, there["gradients"][weight]) / (1e-30 + float(value.abs().max()))
                    for weight, value in here["gradients"].items()
                ),
                "chunks": _difference(there["whole"], there["chunks"]),
                "samples": float((here["drawn"] != there["drawn"]).double().mean()),
            }
            values[key] = largest
            print(key, name, " ".join(f"{what} {value:.1e}" for what, value in largest.items()), flush=True)
            limits = {"nats": NATS[name], "gradients": GRADIENTS[name], "chunks": NATS[name]}
            wrong += [f"{key} {name} {what}" for what, limit in limits.items() if not largest[what] <= limit]
    if wrong:
        sys.exit(f"{arguments.device} differs from the CPU: {', '.join(wrong)}")
    return {"systems": len(systems.SYSTEMS)} | {
        f"{name} {what}": max(largest[what] for largest in values.values())
        for name, values in found.items()
        for what in next(iter(values.values()))
    }


def _systems():
    """The tiny systems of the tests."""
    path = ROOT / "test/speechlvm/models/conftest.py"
    specification = importlib.util.spec_from_file_location("systems", path)
    systems = sys.modules["systems"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(systems)
    return systems


def graphs(arguments):
    """Samples of every system with CUDA graphs and without; launches and milliseconds of the steps of real sizes."""
    import torch

    from speechlvm.distributions.noise import Noise
    from speechlvm.experiment.config import load_config
    from speechlvm.experiment.load import build
    from speechlvm.modules import loop
    from speechlvm.observation import AudioObservation, Observation, Statistics

    device, wrong, found, systems = torch.device(arguments.device), [], {"nats": 0.0}, _systems()

    def samples(model, observation, steps, dtype, with_graphs):
        loop.GRAPH_DEVICES = (device.type,) if with_graphs and device.type == "cuda" else ()
        observation = Observation.from_dict(observation.to_dict(), device)
        noise = Noise([(0, row) for row in range(3)], device, dtype)
        return model.to(device, dtype).sample(steps * model.hop, noise, observation.inputs_of)

    for key in systems.SYSTEMS:
        tiny = systems.tiny_system(key)
        plain, graph = (
            samples(tiny.model, tiny.observation, loop.LEAST_STEPS, torch.float64, which) for which in (False, True)
        )
        nats = _difference(plain.log_likelihood, graph.log_likelihood)
        found["nats"] = max(found["nats"], nats)
        print(key, f"nats {nats:.1e}", flush=True)
        if not torch.equal(plain.target, graph.target) or not nats <= NATS["float64"]:
            wrong.append(key)
    if wrong:
        sys.exit(f"graphs change the samples of {', '.join(wrong)}")
    for config in ("wavenet_s1", "lstm_s64", "cwvae_l2_s64"):
        settings = load_config(MINI / f"conf/{config}.yaml")
        observation = AudioObservation(settings.coding, Statistics(0.0, 0.1))
        model = build(settings, observation, seed=1).eval().requires_grad_(False)
        for with_graphs in (False, True):
            fewer, more = (
                _cost(lambda: samples(model, observation, steps, torch.float32, with_graphs), device)  # noqa: B023
                for steps in (loop.LEAST_STEPS, loop.LEAST_STEPS + STEPS)
            )
            name, steps = f"{config} {'graph' if with_graphs else 'plain'}", STEPS * model.hop // model.stack
            for what, a, b in zip(("launches", "ms"), fewer, more, strict=True):
                found[f"{name} {what}"] = (b - a) / steps
    return found


def _cost(run, device):
    """Launches and milliseconds of a run, after a first one."""
    from speechlvm.training.benchmarking import counts, launches, synchronise

    run()
    number = launches(run, device).calls if device.type == "cuda" else counts(run).operations
    synchronise(device)
    started = time.perf_counter()
    run()
    synchronise(device)
    return number, 1000 * (time.perf_counter() - started)


def sizes(arguments):
    """The systems of egs/mini, whose sizes have other kernels: float32 on the device, float64 on the CPU."""
    import torch

    found = {}
    for config in sorted((MINI / "conf").glob("*.yaml")):
        here = _real_size(config, torch.device("cpu"), torch.float64)
        found[config.stem] = _difference(here, _real_size(config, torch.device(arguments.device), torch.float32))
        print(config.stem, f"nats {found[config.stem]:.1e}", flush=True)
    if wrong := [name for name, nats in found.items() if not nats <= NATS["float32"]]:
        sys.exit(f"float32 on {arguments.device} is not float64 on the CPU: {', '.join(wrong)}")
    return {"systems": len(found), "nats": max(found.values())}


def _real_size(config, device, dtype):
    """Nats per frame of random walks, with random weights."""
    import torch

    from speechlvm.data.dumps.dataset import Batch, Segment
    from speechlvm.experiment.config import load_config
    from speechlvm.experiment.load import build
    from speechlvm.observation import AudioObservation, Observation, Statistics
    from speechlvm.scoring.contract import shaken
    from speechlvm.scoring.score import score_batch

    settings, rows, frames = load_config(config), 4, 4096
    observation = AudioObservation(settings.coding, Statistics(0.0, 0.1))
    model = shaken(build(settings, observation, seed=1)).to(device, dtype)
    walk = torch.randn(rows, frames, generator=torch.Generator().manual_seed(0)).cumsum(1)
    segments = tuple(Segment(str(row), 0, frames) for row in range(rows))
    batch = Batch(segments, (300 * walk).to(torch.int16), torch.full((rows,), frames))
    scores = score_batch(model, Observation.from_dict(observation.to_dict(), device), batch, 10**6)
    return torch.tensor([score.nats / frames for score in scores], dtype=torch.float64)


def _evaluated(tiny, dtype, device):
    """What a system computes in a type and on a device, as tensors on the CPU."""
    import torch

    from speechlvm.data.dumps.dataset import Batch, Segment
    from speechlvm.distributions.noise import Noise
    from speechlvm.observation import Observation
    from speechlvm.scoring.contract import Subject
    from speechlvm.scoring.objective import objective
    from speechlvm.scoring.score import score_batch

    subject = Subject.of(tiny.model, tiny.observation)
    model = copy.deepcopy(tiny.model).to(device, dtype)
    observation = Observation.from_dict(tiny.observation.to_dict(), device)
    data, lengths = subject.data.to(device), subject.lengths.to(device)
    inputs, target = observation.inputs(data, lengths).to(dtype), observation.target(data)
    segments = tuple(Segment(str(row), 0, frames) for row, frames in enumerate(subject.lengths.tolist()))
    batch = Batch(segments, subject.data, subject.lengths)
    noise = Noise(batch.noise_keys(0, 0), device, dtype)
    with torch.no_grad():
        drawn = model.sample(2 * model.hop + 1, noise, observation.inputs_of).target
    whole, chunks = (
        torch.tensor([s.nats / s.frames for s in score_batch(model, observation, batch, size)], dtype=torch.float64)
        for size in (10**6, model.hop)
    )
    model.train().requires_grad_(True)
    bound = model.score(inputs, target, lengths, noise)
    objective(bound, batch.frames, auxiliary_weights=dict.fromkeys(bound.auxiliary, 1.0)).backward()
    terms = {"log_likelihood": bound.log_likelihood} | {f"kl {level}": kl for level, kl in bound.kl.items()}
    return {
        "terms": {name: (series.values / series.hop).detach().cpu() for name, series in terms.items()},
        "gradients": {name: weight.grad.cpu() for name, weight in model.named_parameters()},
        "drawn": drawn.cpu(), "whole": whole, "chunks": chunks,
    }  # fmt: skip


def _difference(a, b):
    return float((a.double() - b.double()).abs().max())


def noise(arguments):
    """Keyed numbers of the device and of the host, and nanoseconds for each."""
    import torch

    from speechlvm.distributions.noise import Noise

    keys = [(1, 0, f"u{row}", 0) for row in range(8)]
    largest = 0.0
    for dtype in (torch.float32, torch.float64):
        host, device = (Noise(keys, where, dtype) for where in ("cpu", arguments.device))
        for start, steps, dim in ((0, 3, 1), (5, 70, 3), (1001, 500, 256), (2**33, 9, 7)):
            of_host, of_device = (made.uniform("z1", start, steps, dim).cpu() for made in (host, device))
            if not torch.equal(of_host, of_device):
                sys.exit(f"uniform {dtype} numbers from {start} on differ by {_difference(of_host, of_device):.1e}")
            of_host, of_device = (made.normal("z1", start, steps, dim).cpu() for made in (host, device))
            largest = max(largest, _difference(of_host, of_device))
    if not largest <= NORMALS:
        sys.exit(f"normal numbers differ by {largest:.1e}")
    seconds = {}
    for where in ("cpu", arguments.device):
        made = Noise(keys, where)
        for _ in range(2):
            started = time.perf_counter()
            float(made.normal("z1", 0, 2000, 256).sum())
            seconds[where] = time.perf_counter() - started
    return {"normals": largest} | {f"{where} [ns]": s / (8 * 2000 * 256) * 1e9 for where, s in seconds.items()}


def _train(arguments, name, config, *words):
    """Arguments of Python to train a configuration of egs/mini on its corpus, in a new directory."""
    if not (DUMP / "train/info.json").exists():
        sys.exit("egs/mini/dump is missing; run bash egs/mini/run.sh --stop_stage 2 where that works, and copy it")
    command = ["-m", "speechlvm.bin.train", "--config", str(MINI / f"conf/{config}.yaml")]
    command += ["--train", str(DUMP / "train"), "--valid", str(DUMP / "valid"), "--out", str(arguments.out / name)]
    return [*command, "--ngpu", str(int(arguments.device == "cuda")), "--validation.patience", "null", *words]


def _python(*words):
    subprocess.run([sys.executable, *words], check=True)


def _history(arguments, name):
    path = arguments.out / name / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _twice(arguments, again):
    """Train for nine steps, and then as `again` does, given the arguments of Python; the losses must be the same."""
    shutil.rmtree(arguments.out, ignore_errors=True)
    words = ["--limits.steps", "9", "--validation.every_steps", "3", "--validation.utterances", "4"]
    words += ["--data.batch_frames", "8192"]
    _python(*_train(arguments, "first", "cwvae_l2_s64", *words))
    again(_train(arguments, "again", "cwvae_l2_s64", *words))
    both = ([entry["nats_per_frame"] for entry in _history(arguments, name)] for name in ("first", "again"))
    difference = max(abs(a - b) for a, b in zip(*both, strict=True))
    if not difference <= REPEATED:
        sys.exit(f"losses differ by {difference:.1e} nats per frame")
    return {"nats": difference}


def resume(arguments):
    """A training that is killed and goes on ends with the losses of one that was not."""

    def kill_and_resume(words):
        process = subprocess.Popen([sys.executable, *words])
        while len(_history(arguments, "again")) < 2 and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        if process.wait() != -signal.SIGKILL or (arguments.out / "again/done.json").exists():
            sys.exit(f"the training ended with status {process.returncode} before it could be killed")
        _python(*words)

    return _twice(arguments, kill_and_resume)


def torchrun(arguments):
    """A training in a process group, on a GPU of nccl, has the losses of one without."""
    return _twice(arguments, lambda words: _python("-m", "torch.distributed.run", "--nproc_per_node", "1", *words))


def training(arguments):
    """Bits of the validation set before and after so many seconds of training."""
    words = [
        "--limits.steps",
        "null",
        "--limits.seconds",
        str(arguments.seconds),
        "--validation.every_steps",
        "1000000",
    ]
    _python(*_train(arguments, arguments.config, arguments.config, *words))
    first, last = (_history(arguments, arguments.config)[place] for place in (0, -1))
    if not last["bits_per_frame"] < first["bits_per_frame"]:
        sys.exit(f"{arguments.config}: {first['bits_per_frame']} bits per frame before, {last['bits_per_frame']} after")
    return {"before": first["bits_per_frame"]} | {name: last[name] for name in ("bits_per_frame", "step", "seconds")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    items = {item.__name__: item for item in (contract, graphs, sizes, noise, resume, torchrun, training)}
    parser.add_argument("item", choices=items)
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--out", type=Path, help="directory of trainings")
    parser.add_argument("--config", help="configuration of egs/mini")
    parser.add_argument("--seconds", type=float, help="of training")
    given = parser.parse_args()
    warnings.filterwarnings("error", message="no CUDA graphs")
    training_device(int(given.device == "cuda"))  # float32 is float32 from here on
    print(json.dumps(items[given.item](given)), flush=True)
