"""Estimates how long the systems of a table train on a GPU, from operations that are counted on a CPU.

From the recipe's directory, after ``. ./path.sh``:

    python benchmark/hours.py A1

For each configuration a training step is run on two rows. Products grow with frames; operations (about the kernels that
a GPU is given) do not, except in systems with latents, where they grow with the steps of a row, which are in CUDA
graphs: these are counted on rows of two lengths. The time of a step is the sum of its products at GFLOPS or
BFLOAT16_GFLOPS, its operations at OPERATION_SECONDS each (launched one by one from Python) or, in graphs,
GRAPH_SECONDS, the steps of torch's LSTM at LSTM_SECONDS each, forwards and backwards, and its random numbers at
NUMBER_SECONDS each (2.4 kB of memory). All are assumptions, for a current GPU at a third of its rate in float32, a
tenth in bfloat16 and half of its bandwidth.
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from speechlvm.bin.cli import make_parser, run_main
from speechlvm.data.dumps.dataset import Batch, Segment
from speechlvm.distributions import dmol
from speechlvm.distributions.noise import philox
from speechlvm.experiment.config import ExperimentConfig, load_config
from speechlvm.experiment.load import build
from speechlvm.models.base import Model
from speechlvm.modules import causal_conv
from speechlvm.observation import AudioObservation, Statistics
from speechlvm.reporting.formats import markdown_table
from speechlvm.reporting.tables import load_tables
from speechlvm.training.benchmarking import counts, product_gflop, training_step

GFLOPS, BFLOAT16_GFLOPS = 20_000, 100_000
OPERATION_SECONDS, GRAPH_SECONDS, LSTM_SECONDS, NUMBER_SECONDS = 8e-6, 4e-6, 25e-6, 1.2e-9
UTTERANCES, FRAMES = 4389, 216_000_000  # of the training set
FILLED = 0.95  # of a batch of whole utterances of similar length
ROWS = 2


def main(argv: list[str] | None = None) -> None:
    """Print a table in Markdown."""
    parser = make_parser(__doc__)
    parser.add_argument("names", nargs="+", help="tables, or configurations")
    arguments = parser.parse_args(argv)
    # not in blocks for the cache of a CPU
    dmol._CPU_BLOCK, causal_conv._CACHED_ELEMENTS = dmol._ACCELERATOR_BLOCK, 2**40
    experiments = {table.table: [row.experiment for row in table.rows] for table in load_tables(Path("conf/tables"))}
    names = dict.fromkeys(name for given in arguments.names for name in experiments.get(given, [given]))
    rows = []
    for path in (Path(f"conf/{name}.yaml") for name in names):
        if path.exists():
            rows.append(estimate(path.stem, load_config(path)))
            print(" ".join(rows[-1]), file=sys.stderr)
    header = [
        "configuration",
        "batch [frames]",
        "steps",
        "products [GFLOP]",
        "operations",
        "in graphs",
        "step [s]",
        "hours",
    ]
    print(markdown_table(header, rows))


def estimate(name: str, config: ExperimentConfig) -> list[str]:
    """The row of a configuration."""
    model = build(config, AudioObservation(config.coding, Statistics(0.0, 0.1)), seed=0)
    data, bfloat16 = config.data, config.training.precision == "bfloat16"
    row_frames = data.segment_frames or min(FRAMES / UTTERANCES, data.row_frames)
    if data.segment_frames:
        batches = UTTERANCES / (data.batch_frames // data.segment_frames)
    else:
        batches = FRAMES / (FILLED * data.batch_frames)
    counted, in_graphs = math.ceil(row_frames), 0.0
    if model.latent_hops:
        counted = model.hop * math.ceil(max(256, 16 * model.stack) / model.hop)
        short, long = (counts(_step(config, model, frames)).operations for frames in (counted, 2 * counted))
        launched, in_graphs = 2 * short - long + _noise_operations(), (long - short) * row_frames / counted
    else:
        launched = counts(_step(config, model, counted)).operations
    gflop = product_gflop(_step(config, model, counted)) / (ROWS * counted) * data.batch_frames
    lstm_steps = sum(m.num_layers for m in model.modules() if isinstance(m, torch.nn.LSTM)) * row_frames / model.stack
    numbers = sum(size * data.batch_frames / model.latent_hops[level] for level, size in model.latent_sizes.items())
    seconds = (
        gflop / (BFLOAT16_GFLOPS if bfloat16 else GFLOPS)
        + launched * OPERATION_SECONDS
        + in_graphs * GRAPH_SECONDS
        + lstm_steps * LSTM_SECONDS
        + numbers * NUMBER_SECONDS
    )
    accumulate = config.training.accumulate
    steps = math.ceil(batches / accumulate) * config.limits.epochs
    return [
        name,
        f"{data.batch_frames}" + (f" x {accumulate}" if accumulate > 1 else ""),
        f"{steps}",
        f"{accumulate * gflop:.0f}",
        f"{accumulate * launched:.0f}",
        f"{accumulate * in_graphs:.0f}",
        f"{accumulate * seconds:.3f}",
        f"{steps * accumulate * seconds / 3600:.1f}",
    ]


def _step(config: ExperimentConfig, model: Model, frames: int) -> Callable[[], None]:
    pcm = (1000 * np.random.default_rng(0).standard_normal((ROWS, frames))).astype(np.int16)
    segments = tuple(Segment(f"u{row}", 0, frames) for row in range(ROWS))
    batch = Batch(segments, torch.from_numpy(pcm), torch.full((ROWS,), frames))
    return training_step(model, AudioObservation(config.coding, Statistics(0.0, 0.1)), batch, None, foreach=True)


def _noise_operations() -> int:
    """Those of a device's random numbers, which do not grow with their number."""
    keys = torch.zeros(1, 2, dtype=torch.int64)
    return counts(lambda: philox(keys, keys[:, 0])).operations


if __name__ == "__main__":
    run_main(main)
