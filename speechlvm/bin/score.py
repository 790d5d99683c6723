"""Stage 4: likelihoods of a set under a trained model; sharded, with exact sums."""

from pathlib import Path
from typing import Any

from speechlvm.bin.cli import add_sharding, make_parser, run_main, run_sharded
from speechlvm.bin.inputs import check_done, check_trained
from speechlvm.utils.files import bytes_in, check_space, hash_file, hash_value


def main(argv: list[str] | None = None) -> int:
    """Score one set."""
    parser = make_parser(__doc__)
    parser.add_argument("--exp", type=Path, required=True, help="experiment directory")
    parser.add_argument("--dump", type=Path, required=True, help="dump of the set")
    parser.add_argument("--out", type=Path, required=True, help="output directory")
    parser.add_argument("--coding", help="coding to score in; default: that of training")
    parser.add_argument(
        "--bound",
        choices=("elbo", "iwae", "fivo"),
        default="elbo",
        help="bound for models with latents: elbo, with one sample as in the papers; iwae, importance-weighted with K "
        "samples; fivo, a particle filter, which is tighter for long sequences unless the posterior sees the future "
        "(SRNN when smoothing, Z-forcing, Stochastic WaveNet, CW-VAE: compare both on the validation set). Both take K "
        "times the arithmetic; iwae takes K times the memory, fivo only K states, but it goes step by step, about 4 "
        "times slower than iwae on a CPU",
    )
    parser.add_argument("--particles", type=int, default=16, help="K of iwae and fivo, at least 2")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument(
        "--max_frames", type=int, help="maximum frames in memory; does not change results; default: by data and model"
    )
    parser.add_argument(
        "--chunk_frames", type=int, default=65_536, help="frames processed at once; does not change results"
    )
    parser.add_argument("--double", action="store_true", help="compute in float64")
    parser.add_argument("--ngpu", type=int, default=0, help="number of GPUs, 0 or 1")
    add_sharding(parser)
    arguments = parser.parse_args(argv)
    if any(most is not None and most < 1 for most in (arguments.max_frames, arguments.chunk_frames)):
        parser.error("--max_frames and --chunk_frames must be at least 1")
    if arguments.particles < 2:
        parser.error(f"--particles {arguments.particles}: expected at least 2")

    check_done(arguments.dump)
    inputs = {
        "model": hash_file(check_trained(arguments.exp)),
        "dump": hash_file(arguments.dump / "info.json"),
        "coding": arguments.coding,
        "bound": _bound(arguments),
        "seed": arguments.seed,
        "double": arguments.double,
    }

    return run_sharded(
        arguments,
        arguments.out,
        inputs,
        write=lambda job, inputs: _score(arguments, job, inputs),
        merge=lambda: _merge(arguments),
    )


def _bound(arguments: Any) -> str:
    """Name of the bound of models with latents in results."""
    return "elbo" if arguments.bound == "elbo" else f"{arguments.bound}-{arguments.particles}"


def _score(arguments: Any, job: int, inputs: dict[str, Any]) -> None:
    import sys

    from tqdm import tqdm

    from speechlvm.data.dumps import open_dump
    from speechlvm.data.dumps.dump import share_of
    from speechlvm.experiment.load import load_experiment, training_device
    from speechlvm.scoring import results
    from speechlvm.scoring.score import score_dump

    experiment = load_experiment(arguments.exp, training_device(arguments.ngpu), arguments.coding)
    model = experiment.model.double() if arguments.double else experiment.model
    dump = open_dump(arguments.dump)
    experiment.observation.check(dump)
    check_space(arguments.out, 600 * len(dump.records), "scores", bytes_in(arguments.out))
    utterances = share_of(sorted(dump.records), job, arguments.nj)
    several = model.bound == "elbo" and arguments.bound != "elbo"
    scores = score_dump(
        model,
        experiment.observation,
        dump,
        utterances,
        max_frames=arguments.max_frames,
        chunk_frames=arguments.chunk_frames,
        seed=arguments.seed,
        samples=arguments.particles if several else 1,
        resample=several and arguments.bound == "fivo",
    )
    bar = tqdm(scores, total=len(utterances), unit="utt", disable=not sys.stderr.isatty())
    results.write(arguments.out, job, bar, inputs)


def _merge(arguments: Any) -> None:
    from speechlvm.experiment.load import config_of, load_experiment
    from speechlvm.scoring import results

    experiment = load_experiment(arguments.exp, coding=arguments.coding)
    model, provenance = experiment.model, experiment.provenance
    result = results.merge(
        arguments.out,
        arguments.nj,
        {
            "model": experiment.name,
            "system": experiment.config.model,
            "set": arguments.dump.name,
            "train_set": experiment.train_set,
            "coding": experiment.config.coding,
            "distribution": {"name": experiment.config.distribution, **experiment.config.distribution_conf},
            "unit": "density" if model.distribution.continuous else "pmf",
            "bound": "exact" if model.bound == "exact" else _bound(arguments),
            "stack": model.stack,
            "seed": provenance.seed,
            "steps": provenance.step,
            "epochs": provenance.epoch,
            "hours": provenance.seconds / 3600,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "config_hash": hash_value(config_of(arguments.exp).frozen()),
            **results.of_dump(arguments.dump),
        },
    )
    print(results.describe(result))


if __name__ == "__main__":
    run_main(main)
