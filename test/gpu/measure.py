"""What a few minutes on one GPU show: the comparisons of items.py, and measurements of speechlvm.bin.benchmark.

Items run in order of value until the time is used up, each as a process of its own. Results are kept in --out, and a
rerun goes on with what is left. Ends with tables in Markdown; the exit status is 1 if an item failed.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NEEDED = {
    "torch": "torch", "numpy": "numpy", "pydantic": "pydantic", "yaml": "PyYAML", "tqdm": "tqdm", "pytest": "pytest",
    "safetensors": "safetensors", "tensorboard": "tensorboard",
}  # fmt: skip
UTTERANCE_FRAMES = 49_152  # about the mean of TIMIT, and whole steps of every system
RATE_HZ = 16_000
START_SECONDS = 15.0  # no item is started in less
LONGEST_SHARE = 0.4  # of all the time, for one item
WANTED = 0.3  # of what arithmetic or bytes allow


@dataclass(frozen=True)
class Item:
    """Something to run.

    Attributes:
        name: its name, and that of its results.
        words: arguments of Python; the last line of the output is a JSON object.
        timed: nothing else may run at the same time.
        seconds: not started if less time is left.
    """

    name: str
    words: tuple
    timed: bool = True
    seconds: float = START_SECONDS


def items(device, minutes, out):
    """All items, by value; on a GPU, training takes a fifth of the time."""
    from speechlvm.reporting.tables import load_tables

    (table,) = (table for table in load_tables(ROOT / "egs/timit/conf/tables") if table.table == "A1")
    rows = [row.experiment for row in table.rows if (ROOT / f"egs/timit/conf/{row.experiment}.yaml").exists()]
    first = ["wavenet_s1_c96", "lstm_s64_d256_l1", "cwvae_s64_z96_l2"]

    def compared(name, *words, label=None, seconds=START_SECONDS):
        command = (str(HERE / "items.py"), name, "--device", device, "--out", str(out / (label or name)), *words)
        return Item(label or name, command, timed=False, seconds=seconds)

    def measured(task, config, streams=None):
        name = " ".join((task, config) if streams is None else (task, config, str(streams)))
        return Item(name, benchmark_words(device, task, config, streams))

    yield from (compared(name) for name in ("contract", "noise", "sizes", "graphs"))
    yield measured("train", first[0])
    yield measured("generate", first[0], 256)
    yield from (measured("train", config) for config in first[1:])
    yield from (compared(name) for name in ("resume", "torchrun"))
    seconds = (2 if device == "cpu" else 12) * minutes
    for config in ("lstm_s64", "wavenet_s1", "cwvae_l2_s64"):
        words = ("--config", config, "--seconds", str(seconds))
        yield compared("training", *words, label=f"training {config}", seconds=seconds + 2 * START_SECONDS)
    yield from (measured("train", config) for config in rows if config not in first)
    yield from (measured("score", config) for config in first)
    further = [(config, streams) for streams in (32, 1, 256) for config in first]
    yield from (measured("generate", *which) for which in further if which != (first[0], 256))


def benchmark_words(device, task, config, streams):
    """Arguments of the benchmark of a configuration: its own batches, on a CPU a few steps of one or two rows."""
    from speechlvm.experiment.config import load_config

    path = ROOT / f"egs/timit/conf/{config}.yaml"
    settings = load_config(path)
    stack = settings.model_conf.get("stack") or settings.model_conf["stride"]
    small, data = device == "cpu", settings.data
    if task == "generate":
        batch, frames = streams, (4 if small else 1024) * stack
    else:
        frames = min(data.segment_frames or UTTERANCE_FRAMES, max(256, 16 * stack) if small else UTTERANCE_FRAMES)
        batch = 2 if small else data.batch_frames // frames
    words = {"config": path, "task": task, "batch": batch, "frames": frames, "repeats": 1 if small else 5}
    words |= {"precision": settings.training.precision, "ngpu": int(not small)}
    return ("-m", "speechlvm.bin.benchmark", *(f"--{key}={value}" for key, value in words.items()))


# -- running ---------------------------------------------------------------------------------------------------------


def run(item, out, deadline, longest, running):
    """Runs an item, unless its result is there; returns the word for it: kept, done, FAILED or left.

    Its process is in `running` meanwhile, and leads a group, with which it ends.
    """
    result, log = (out / kind / item.name.replace(" ", "_") for kind in ("results", "logs"))
    if result.exists():
        return "kept"
    left = deadline - time.monotonic()
    if left < item.seconds:
        return "left"
    with open(log, "wb") as stream:
        options = {"stdout": stream, "stderr": subprocess.STDOUT, "cwd": ROOT, "start_new_session": True}
        process = subprocess.Popen([sys.executable, *item.words], **options)
        running.add(process)
        try:
            process.wait(min(left, longest))
        except subprocess.TimeoutExpired:
            stream.write(b"took too long\n")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        running.remove(process)
    if process.returncode == 0 and last_line(log).startswith("{"):
        partial = result.with_suffix(".partial")
        partial.write_text(last_line(log))
        partial.replace(result)
        return "done"
    return "left" if time.monotonic() > deadline else "FAILED"


def last_line(path):
    """The last line that is not empty."""
    return ([""] + [line for line in path.read_text(errors="replace").splitlines() if line.strip()])[-1]


def run_all(given, out, started):
    """Runs items by value; returns their results by name, and the names of those that failed and that are left."""
    seconds = 60 * given.minutes
    for folder in ("results", "logs"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    results, failed, left, running = {}, [], [], set()

    def reported(item):
        word = run(item, out, started + seconds, LONGEST_SHARE * seconds, running)
        path = item.name.replace(" ", "_")
        if word in ("kept", "done"):
            results[item.name] = json.loads((out / "results" / path).read_text())
            line = summary(results[item.name])
        elif word == "FAILED":
            failed.append(item.name)
            line = last_line(out / "logs" / path)
        else:
            left.append(item.name)
            return
        print(f"{time.monotonic() - started:4.0f} s  {word:6}  {item.name}: {line}", flush=True)

    for timed, group in groupby(items(given.device, given.minutes, out), key=lambda item: item.timed):
        with ThreadPoolExecutor(1 if timed else max(1, (os.cpu_count() or 1) // 4)) as pool:
            try:
                list(pool.map(reported, group))
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in running:
                    os.killpg(process.pid, signal.SIGKILL)
                raise
    return results, failed, left


# -- results ---------------------------------------------------------------------------------------------------------


def launched(found):
    """Launches of a run; on a CPU, operations."""
    return found["launches"]["calls"] if found["launches"] else found["operations"]


def reached(found):
    """The seconds that the products of a run, or its bytes, take at the machine's rates, as a share of its seconds."""
    rate = found["gemm_bf16_gflops" if found["precision"] == "bfloat16" else "gemm_gflops"]
    return max(found["gflop"] / rate, found["gbytes"] / found["copied_gbytes"]) / found["seconds"]


def summary(found):
    """A line about a result."""
    if "gflop" not in found:
        return ", ".join(f"{name} {value:.5g}" for name, value in found.items())
    times = f"{1000 * found['seconds']:.1f} ms, {launched(found)} launches, {found['frames_per_second']:.0f} frames/s"
    return f"{times}, {reached(found):.0%} of what products or bytes allow"


TRAINED = ("configuration", "batch", "ms", "launches", "kernels", "waits", "busy", "GFLOP", "of bf16", "GB moved",
           "of copies", "of what these allow", "peak memory")  # fmt: skip
RAN = ("", "rows x frames", "frames/s", "frames/s of a row", "of real time", "launches per step", "peak memory")


def trained_row(name, found):
    """A training step."""
    seconds, on_gpu = found["seconds"], ("", "", "")
    if profiled := found["launches"]:
        on_gpu = f"{profiled['kernels']}", f"{profiled['waits']}", f"{profiled['busy_seconds'] / seconds:.0%}"
    return [
        name.removeprefix("train "), f"{found['batch']} x {found['frames']} {found['precision']}",
        f"{1000 * seconds:.1f}", f"{launched(found)}", *on_gpu,
        f"{found['gflop']:.1f}", f"{found['gflop'] / seconds / found['gemm_bf16_gflops']:.1%}",
        f"{found['gbytes']:.2f}", f"{found['gbytes'] / seconds / found['copied_gbytes']:.1%}",
        f"{reached(found):.0%}", f"{found['peak_bytes'] / 1e9:.2f} GB",
    ]  # fmt: skip


def ran_row(name, found):
    """Scoring or generation."""
    of_row = found["frames_per_second"] / found["batch"]
    return [
        name, f"{found['batch']} x {found['frames']}", f"{found['frames_per_second']:.0f}", f"{of_row:.0f}",
        f"{of_row / RATE_HZ:.2f}", f"{launched(found) * found['stack'] / found['frames']:.1f}",
        f"{found['peak_bytes'] / 1e9:.2f} GB",
    ]  # fmt: skip


def tables(results):
    """All results in Markdown."""
    from speechlvm.reporting.formats import markdown_table

    measured = {name: found for name, found in results.items() if "gflop" in found}
    steps = {name: found for name, found in measured.items() if name.startswith("train ")}
    parts = []
    for found in list(measured.values())[:1]:
        bf16, float32 = (found[key] / 1000 for key in ("gemm_bf16_gflops", "gemm_gflops"))
        parts.append(
            f"{found['device']}, torch {found['torch']}: large products run at {bf16:.2f} TFLOP/s in bfloat16 and at "
            f"{float32:.2f} in float32, large copies read and write {found['copied_gbytes']:.0f} GB/s. `GB moved` is "
            "the size of the inputs and outputs of all operations; launches on a CPU are operations."
        )
    if steps:
        parts.append(markdown_table(TRAINED, [trained_row(*item) for item in steps.items()]))
    if others := {name: found for name, found in measured.items() if name not in steps}:
        parts.append(markdown_table(RAN, [ran_row(*item) for item in others.items()]))
    if compared := [[name, summary(found)] for name, found in results.items() if name not in measured]:
        parts.append(markdown_table(("compared with the CPU, resumed, trained", "found"), compared))
    slow = {name: found for name, found in steps.items() if found["launches"] and reached(found) < WANTED}
    for name, found in slow.items():
        longest = [[kernel[:80], f"{count}", f"{1000 * s:.2f}"] for kernel, count, s in found["launches"]["longest"]]
        parts.append(f"{name}:\n\n" + markdown_table(("longest kernels", "number", "ms"), longest))
    return "\n\n".join(parts)


def main():
    """Run what is missing, and print the tables."""
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="time for everything")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="on a CPU, measurements are small")
    parser.add_argument("--out", type=Path, default=ROOT / "test/gpu/out", help="directory of the results")
    given = parser.parse_args()
    if missing := [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]:
        sys.exit(f"missing in {sys.executable}: {' '.join(missing)}; put them on PYTHONPATH (pip install --target)")
    if given.device == "cpu":
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # several wait for each other where other programs run
    out = given.out.resolve() / given.device
    results, failed, left = run_all(given, out, started)
    report = tables(results)
    (out / "report.md").write_text(report + "\n")
    print(f"\n{report}\n")
    print(f"{len(results)} of {len(results) + len(failed) + len(left)} items are done")
    for what, names in (("failed", failed), ("no time was left for", left)):
        if names:
            print(f"{what}: {', '.join(names)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
