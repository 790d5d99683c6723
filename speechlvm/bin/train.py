"""Stage 3: train one system with one seed; run again after any interruption, it goes on where it was.

Any setting of the configuration can be given as --section.key value, for instance --limits.seconds 60.
"""

import logging
from pathlib import Path
from typing import Any

from speechlvm.bin.cli import make_parser, run_main, start_logging
from speechlvm.files import check_done, hash_file, is_done, mark_done, mark_undone, read_json

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Train one system."""
    parser = make_parser(__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML configuration")
    parser.add_argument("--train", type=Path, required=True, help="dump of the training set")
    parser.add_argument("--valid", type=Path, required=True, help="dump of the validation set (selects the best model)")
    parser.add_argument("--out", type=Path, required=True, help="experiment directory")
    parser.add_argument("--seed", type=int, default=1, help="of weights, data order and noise")
    parser.add_argument("--ngpu", type=int, default=0, help="0: train on the CPU")
    arguments, rest = parser.parse_known_args(argv)
    overrides = _pairs(parser, rest)

    check_done(arguments.train, arguments.valid)
    inputs = {
        "config": hash_file(arguments.config),
        "overrides": dict(overrides),
        "train": hash_file(arguments.train / "info.json"),
        "valid": hash_file(arguments.valid / "info.json"),
        "seed": arguments.seed,
    }
    if is_done(arguments.out, inputs) and _best_is_there(arguments.out / "checkpoints"):
        print(f"{arguments.out}: complete")
        return 0
    _train(arguments, overrides, inputs)
    return 0


def _best_is_there(directory: Path) -> bool:
    best = directory / "best.json"
    return best.exists() and (directory / f"step-{read_json(best)['step']:08d}.pt").exists()


def _pairs(parser: Any, rest: list[str]) -> list[tuple[str, str]]:
    """--section.key value pairs."""
    pairs = []
    items = iter(rest)
    for item in items:
        name, equals, value = item.removeprefix("--").partition("=")
        if not item.startswith("--") or "." not in name:
            parser.error(f"unknown argument '{item}'")
        if not equals:
            value = next(items, None)
            if value is None:
                parser.error(f"{item} needs a value")
        pairs.append((name, value))
    return pairs


def _train(arguments: Any, overrides: list[tuple[str, str]], inputs: dict[str, Any]) -> None:
    from speechlvm.config import dump_yaml, load_experiment
    from speechlvm.data.dump import open_dump
    from speechlvm.errors import ConfigError
    from speechlvm.experiment import build, load_config, training_device
    from speechlvm.files import atomic_write, write_json
    from speechlvm.observation import Observation
    from speechlvm.training.checkpoint import Checkpoints, load_weights
    from speechlvm.training.lock import locked
    from speechlvm.training.trainer import Trainer

    config = load_experiment(arguments.config, overrides)
    device = training_device(arguments.ngpu)
    train, valid = open_dump(arguments.train), open_dump(arguments.valid)
    observation = Observation.of_dump(config.coding, train)
    observation.check(valid)
    origin_path = arguments.out / "origin.json"
    origin = {**{key: inputs[key] for key in ("train", "valid", "seed")}, "train_set": arguments.train.name}
    with locked(arguments.out):
        if (arguments.out / "config.yaml").exists():
            changed = _differences(load_config(arguments.out).frozen(), config.frozen())
            if origin_path.exists():
                changed += [key for key, value in read_json(origin_path).items() if origin.get(key) != value]
            if changed:
                raise ConfigError(
                    f"{arguments.out}: the experiment exists with other settings: {', '.join(changed)}; "
                    "give this one a name of its own with --tag, or remove the directory"
                )
        mark_undone(arguments.out)
        start_logging(arguments.out / "train.log")
        with atomic_write(arguments.out / "config.yaml") as stream:
            stream.write(dump_yaml(config))
        write_json(origin_path, origin)
        model = build(config, observation, arguments.seed)
        if not Checkpoints(arguments.out / "checkpoints").steps():
            if config.training.initialise_from is None:
                model.initialise_output(model.distribution.initial_bias(*observation.marginal(train.marginal())))
            else:
                source = Path(config.training.initialise_from)
                content = Checkpoints(source / "checkpoints").load_best()
                load_weights(model, content["model"], str(source))
        model.to(device)
        observation = Observation.from_dict(observation.to_dict(), device)
        log.info(
            "%s: %d parameters, %s on %s; training on %d utterances (%s), validating on %d",
            config.model, sum(p.numel() for p in model.parameters()), config.training.precision, device,
            len(train.records), _amount(train), len(valid.records),
        )  # fmt: skip
        Trainer(config, model, observation, train, valid, arguments.out, arguments.seed).run()
        mark_done(arguments.out, inputs)
        log.info("finished: %s", arguments.out)


def _amount(dump: Any) -> str:
    return f"{dump.frames / dump.rate_hz / 3600:.2f} h" if dump.rate_hz else f"{dump.frames} frames"


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            keys += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            keys.append(f"{prefix}{key} (was {a!r}, now {b!r})")
    return keys


if __name__ == "__main__":
    run_main(main)
