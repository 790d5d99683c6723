"""Time an optimiser step, scoring and generation of configurations: medians, threads, peak memory.

Each measurement runs in a separate process, so that peak memory is measured correctly.

    python -m speechlvm.bin.benchmark --task train --config conf/lstm_s64.yaml --batch 16 --frames 48000
    python -m speechlvm.bin.benchmark --task load --config conf/lstm_s64.yaml --dump dump/pcm16/train
    python -m speechlvm.bin.benchmark --suite suite.yaml
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from speechlvm.bin.cli import make_parser, run_main

TASKS = ("train", "score", "generate", "load")


def main(argv: list[str] | None = None) -> int:
    """Run one measurement, or all of a suite with a table at the end."""
    parser = make_parser(__doc__)
    parser.add_argument("--config", type=Path, help="YAML configuration of the system")
    parser.add_argument("--suite", type=Path, help="YAML list of measurements (name, config, task, batch, frames, ...)")
    parser.add_argument("--task", choices=TASKS, default="train", help="what to time; load: reading one batch")
    parser.add_argument("--dump", type=Path, help="dump to read batches from (load)")
    parser.add_argument("--batch", type=int, default=2, help="batch size")
    parser.add_argument("--frames", type=int, default=16000, help="frames per row")
    parser.add_argument("--repeats", type=int, default=5, help="timed repetitions after one warm-up")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="precision of the training step"
    )
    parser.add_argument("--ngpu", type=int, default=0, help="number of GPUs, 0 or 1")
    arguments = parser.parse_args(argv)
    if arguments.suite is not None:
        return _suite(arguments)
    if arguments.config is None or (arguments.task == "load" and arguments.dump is None):
        parser.error("give --config (and --dump for the task load), or --suite")
    print(json.dumps(_load(arguments) if arguments.task == "load" else _measure(arguments)))
    return 0


def _load(arguments: Any) -> dict[str, Any]:
    """Seconds to read one training batch of the configuration, over an epoch."""
    import statistics
    import time

    from speechlvm.data.dumps import open_dump
    from speechlvm.data.dumps.dataset import load_batches, plan_batches
    from speechlvm.experiment.config import load_config

    data, dump = load_config(arguments.config).data, open_dump(arguments.dump)
    frames = {utterance: record.frames for utterance, record in dump.records.items()}
    seconds, read = [], 0
    batches = load_batches(dump, plan_batches(frames, data, seed=0, epoch=0), data.workers)
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            break
        seconds.append(time.perf_counter() - started)
        read += batch.frames
    return {"seconds": statistics.median(seconds), "slowest": max(seconds), "frames_per_second": read / sum(seconds)}


def _measure(arguments: Any) -> dict[str, Any]:
    import statistics
    import time
    from dataclasses import asdict

    import numpy as np
    import torch

    from speechlvm.data.dumps.dataset import Batch, Segment
    from speechlvm.experiment.config import load_config
    from speechlvm.experiment.load import build, training_device
    from speechlvm.modules import loop
    from speechlvm.observation import AudioObservation, Observation, Statistics
    from speechlvm.scoring.score import score_batch
    from speechlvm.training.benchmarking import (
        copied_gbytes,
        counts,
        gemm_gflops,
        launches,
        peak_memory_bytes,
        product_gflop,
        synchronise,
        training_step,
    )

    config = load_config(arguments.config)
    device = training_device(arguments.ngpu)
    generator = np.random.default_rng(0)
    pcm = (3000 * generator.standard_normal((arguments.batch, arguments.frames))).clip(-32768, 32767).astype(np.int16)
    observation = AudioObservation(config.coding, Statistics(0.0, 0.1))
    model = build(config, observation, seed=0)
    histogram = np.bincount(pcm.reshape(-1).astype(np.int64) + 32768, minlength=65536)
    model.initialise_output(model.distribution.initial_bias(*observation.marginal(histogram)))
    model.to(device)
    observation = Observation.from_dict(observation.to_dict(), device)
    segments = tuple(Segment(f"u{row}", 0, arguments.frames) for row in range(arguments.batch))
    lengths = torch.full((arguments.batch,), arguments.frames)
    batch = Batch(segments, torch.from_numpy(pcm), lengths)
    if arguments.task == "train":
        precision = torch.bfloat16 if arguments.precision == "bfloat16" else None
        run = training_step(model, observation, batch, precision)
    elif arguments.task == "score":
        model.eval().requires_grad_(False)

        def run() -> None:
            score_batch(model, observation, batch, 65_536)
    else:
        from speechlvm.distributions.noise import Noise

        model.eval().requires_grad_(False)

        def run() -> None:
            keys = [(0, row) for row in range(arguments.batch)]
            with torch.no_grad():
                model.sample(arguments.frames, Noise(keys, device), observation.inputs_of)

    seconds = []
    for repeat in range(arguments.repeats + 1):
        started = time.perf_counter()
        run()
        synchronise(device)
        if repeat:
            seconds.append(time.perf_counter() - started)
    on_gpu = asdict(launches(run, device)) if device.type == "cuda" else None
    loop.GRAPH_DEVICES = ()  # from here on, as operations that a graph repeats are not counted
    median, consists = statistics.median(seconds), counts(run)
    return {
        "seconds": median,
        "gflop": product_gflop(run),
        "operations": consists.operations,
        "gbytes": consists.bytes / 1e9,
        "launches": on_gpu,
        "fastest": min(seconds),
        "frames_per_second": arguments.batch * arguments.frames / median,
        "peak_bytes": peak_memory_bytes(device),
        "threads": torch.get_num_threads(),
        "gemm_gflops": gemm_gflops(device, torch.float32),
        "gemm_bf16_gflops": gemm_gflops(device, torch.bfloat16),
        "copied_gbytes": copied_gbytes(device),
        "batch": arguments.batch,
        "frames": arguments.frames,
        "precision": arguments.precision,
        "stack": model.stack,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU",
        "torch": torch.__version__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def _suite(arguments: Any) -> int:
    from speechlvm.reporting.formats import markdown_table
    from speechlvm.utils.errors import ConfigError, UserError
    from speechlvm.utils.settings import parse_yaml
    from speechlvm.utils.text import read_text

    entries = parse_yaml(read_text(arguments.suite), str(arguments.suite))
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{arguments.suite}: expected a list of measurements")
    for place, entry in enumerate(entries, 1):
        if lacking := [key for key in ("name", "config") if key not in entry]:
            raise ConfigError(f"{arguments.suite}: measurement {place} lacks {' and '.join(lacking)}")
    rows = []
    for entry in entries:
        options = {key: entry[key] for key in ("task", "batch", "frames", "repeats", "precision") if key in entry}
        command = [sys.executable, "-m", "speechlvm.bin.benchmark", "--ngpu", str(arguments.ngpu)]
        command += ["--config", str(arguments.suite.parent / entry["config"])]
        command += [word for key, value in options.items() for word in (f"--{key}", str(value))]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}; out of memory?"]
            raise UserError(f"{entry['name']}: {lines[-1]}")
        found = json.loads(done.stdout.splitlines()[-1])
        rows.append(_row(entry, found))
        print(" ".join(rows[-1]), file=sys.stderr)
    header = [
        "measurement",
        "median",
        "fastest",
        "target",
        "published",
        "peak memory",
        "products [GFLOP]",
        "of the GEMM rate",
        "GEMM f32/bf16 [GFLOP/s]",
        "threads",
    ]
    print(markdown_table(header, rows))
    return 0


def _row(entry: dict[str, Any], found: dict[str, Any]) -> list[str]:
    if entry.get("task") == "generate":
        median, fastest = f"{found['frames_per_second']:.0f} frames/s", ""
    else:
        median, fastest = f"{found['seconds']:.2f} s", f"{found['fastest']:.2f} s"
    rate = found["gemm_bf16_gflops" if entry.get("precision") == "bfloat16" else "gemm_gflops"]
    return [
        entry["name"],
        median,
        fastest,
        str(entry.get("target", "")),
        str(entry.get("published", "")),
        f"{found['peak_bytes'] / 1e9:.2f} GB",
        f"{found['gflop']:.0f}",
        f"{found['gflop'] / found['seconds'] / rate:.0%}",
        f"{found['gemm_gflops']:.0f} / {found['gemm_bf16_gflops']:.0f}",
        str(found["threads"]),
    ]


if __name__ == "__main__":
    run_main(main)
