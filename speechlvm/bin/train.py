"""Stage 3: train one system with one seed; if interrupted, rerun to resume.

Any setting of the configuration can be given as --section.key value, for instance --limits.seconds 60.

With several GPUs or nodes, this program is started once on each node and runs torchrun with one process per GPU (on
CPUs: one per node). With several nodes it needs SLURM_NODEID, MASTER_ADDR and MASTER_PORT in the environment, which
Slurm and the runner set. `torchrun --nproc_per_node N -m speechlvm.bin.train ...` works, too.
"""

import logging
import os
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from speechlvm import __version__
from speechlvm.bin.cli import add_check, make_parser, run_main, start_logging, status_if_decided
from speechlvm.bin.inputs import check_done
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.files import hash_file, hash_value, is_done, mark_done, read_json
from speechlvm.utils.processes import default_signals, die_with, is_launched, stop_requests

if TYPE_CHECKING:
    from speechlvm.training.distributed import OneProcess

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Train one system."""
    parser = make_parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML configuration")
    parser.add_argument("--train", type=Path, required=True, help="dump of the training set")
    parser.add_argument("--valid", type=Path, required=True, help="dump of the validation set (selects the best model)")
    parser.add_argument("--out", type=Path, required=True, help="experiment directory, NAME/seed<k> or NAME")
    parser.add_argument("--seed", type=int, default=1, help="random seed of weights, data order and noise")
    parser.add_argument("--ngpu", type=int, default=0, help="GPUs per node; 0: train on the CPU")
    parser.add_argument("--num_nodes", type=int, default=1, help="number of nodes on which this command is started")
    add_check(parser)
    arguments, rest = parser.parse_known_args(argv)
    if arguments.ngpu < 0 or arguments.num_nodes < 1:
        parser.error(f"--ngpu {arguments.ngpu} --num_nodes {arguments.num_nodes}: expected at least 0, and at least 1")
    overrides = _pairs(parser, rest)

    check_done(arguments.train, arguments.valid)
    inputs = {
        "config": hash_file(arguments.config),
        "overrides": dict(overrides),
        "train": hash_file(arguments.train / "info.json"),
        "valid": hash_file(arguments.valid / "info.json"),
        "seed": arguments.seed,
    }
    complete = is_done(arguments.out, inputs) and _best_is_there(arguments.out / "checkpoints")
    if is_launched():
        _train_as_rank(arguments, overrides, inputs, complete)
    status = status_if_decided(arguments, arguments.out, complete)
    if status is not None:
        return status
    processes = max(1, arguments.ngpu)
    if processes * arguments.num_nodes > 1:
        from speechlvm.experiment.load import training_device
        from speechlvm.training.launch import launch

        training_device(arguments.ngpu, processes - 1)
        return launch(sys.argv[1:] if argv is None else argv, processes, arguments.num_nodes)
    with stop_requests() as requests:
        from speechlvm.training.distributed import OneProcess

        _train(arguments, overrides, inputs, OneProcess(), requests)
    return 0


def _best_is_there(directory: Path) -> bool:
    try:
        return (directory / f"step-{int(read_json(directory / 'best.json')['step']):08d}.pt").exists()
    except (UserError, LookupError, TypeError, ValueError):  # training reports what is wrong
        return False


def _pairs(parser: Any, rest: list[str]) -> list[tuple[str, str]]:
    """Parse --section.key value pairs."""
    pairs = []
    items = iter(rest)
    for item in items:
        name, equals, value = item.removeprefix("--").partition("=")
        if not item.startswith("--") or "." not in name:
            parser.error(f"unknown argument '{item}'")
        if not equals:
            value = next(items, None)
            if value is None:
                parser.error(f"{item} requires a value")
        pairs.append((name, value))
    return pairs


def _train_as_rank(
    arguments: Any, overrides: list[tuple[str, str]], inputs: dict[str, Any], complete: bool
) -> NoReturn:
    """Train as one of several processes, then exit."""
    die_with(os.getppid())
    from speechlvm.training.distributed import PeerFailed, PeerLost, ProcessGroup

    def train() -> int:
        try:
            with default_signals():  # there is nothing to save until all have joined
                processes = ProcessGroup()
                with stop_requests() as requests:
                    if not processes.all_gather(complete)[0][0]:  # rank 0 decides
                        _train(arguments, overrides, inputs, processes, requests)
        except (PeerFailed, PeerLost) as error:
            return error.exit_status
        return 0

    status = 1
    try:
        run_main(train)
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    # skip destructors: that of the process group waits for its threads, which may be waiting for the interpreter
    os._exit(status)


def _train(
    arguments: Any,
    overrides: list[tuple[str, str]],
    inputs: dict[str, Any],
    processes: "OneProcess",
    requests: list[int],
) -> None:
    from speechlvm.data.dumps import open_dump
    from speechlvm.experiment.checkpoint import Checkpoints
    from speechlvm.experiment.config import load_config
    from speechlvm.experiment.load import build, training_device
    from speechlvm.experiment.origin import data_hash, record_origin
    from speechlvm.observation import Observation
    from speechlvm.training.trainer import Trainer
    from speechlvm.utils.lock import locked

    if not processes.is_rank0:
        logging.disable(logging.WARNING)
    with ExitStack() as held:
        with processes.raise_on_all():
            config = load_config(arguments.config, overrides)
            device = training_device(arguments.ngpu, processes.local_rank)
            sets = arguments.train, arguments.valid
            train, valid = map(open_dump, sets)
            observation = Observation.of_dump(config.coding, train)
            observation.check(valid)
            if processes.is_rank0:
                held.enter_context(locked(arguments.out))
                record_origin(arguments.out, config, arguments.seed, *sets)
                start_logging(arguments.out / "train.log")
            model = build(config, observation, arguments.seed)
            if not Checkpoints(arguments.out / "checkpoints").steps():
                _initialise(model, config.training.initialise_from, observation, train)
            model.to(device)
            observation = Observation.from_dict(observation.to_dict(), device)
        _check_same_on_all(processes, [config.model_dump(mode="json"), arguments.seed, *map(data_hash, sets)])
        log.info(
            "%s: %d parameters, %s on %s; training on %d utterances (%s), validating on %d",
            config.model, sum(p.numel() for p in model.parameters()), config.training.precision,
            device if processes.size == 1 else f"{processes.size} x {device.type}",
            len(train.records), _amount(train), len(valid.records),
        )  # fmt: skip
        Trainer(config, model, observation, train, valid, arguments.out, arguments.seed, processes, requests).run()
        if processes.is_rank0:
            mark_done(arguments.out, inputs)
            log.info("finished: %s", arguments.out)


def _initialise(model: Any, initialise_from: str | None, observation: Any, train: Any) -> None:
    """Initialise a new model with the weights of another run, or its output with the marginal of the training data."""
    from speechlvm.experiment.checkpoint import Checkpoints, load_weights

    if initialise_from is None:
        model.initialise_output(model.distribution.initial_bias(*observation.marginal(train.marginal())))
    else:
        content = Checkpoints(Path(initialise_from) / "checkpoints").load_best()
        load_weights(model, content["model"], initialise_from)


def _check_same_on_all(processes: "OneProcess", values: list[Any]) -> None:
    """Check that settings, data and versions are the same in all processes."""
    import torch

    fingerprint = int(hash_value([*values, __version__, torch.__version__])[:12], 16)  # exact as a float
    if len({number for (number,) in processes.all_gather(fingerprint)}) > 1:
        raise processes.log_once(
            ConfigError("settings, data or versions differ between nodes; run the same command on each of them")
        )


def _amount(dump: Any) -> str:
    return f"{dump.frames / dump.rate_hz / 3600:.2f} h" if dump.rate_hz else f"{dump.frames} frames"


if __name__ == "__main__":
    run_main(main)
