"""Stage 4: likelihoods of a set under a trained model, sharded, summed exactly."""

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
    parser.add_argument("--out", type=Path, required=True, help="directory of the results")
    parser.add_argument("--coding", help="coding to score in (default: the one trained with)")
    parser.add_argument(
        "--iwae_samples", type=int, default=1, help="samples K of the importance-weighted bound; 1: the ELBO"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument(
        "--max_frames", type=int, help="maximum frames in memory; does not change results; default: by kind of data"
    )
    parser.add_argument(
        "--chunk_frames", type=int, default=65_536, help="frames processed at once; does not change results"
    )
    parser.add_argument("--double", action="store_true", help="compute in float64")
    parser.add_argument("--ngpu", type=int, default=0, help="number of GPUs, 0 or 1")
    add_sharding(parser)
    arguments = parser.parse_args(argv)
    bounds = (arguments.iwae_samples, arguments.max_frames, arguments.chunk_frames)
    if any(bound is not None and bound < 1 for bound in bounds):
        parser.error("--iwae_samples, --max_frames and --chunk_frames are at least 1")

    check_done(arguments.dump)
    inputs = {
        "model": hash_file(check_trained(arguments.exp)),
        "dump": hash_file(arguments.dump / "info.json"),
        "coding": arguments.coding,
        "samples": arguments.iwae_samples,
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
    scores = score_dump(
        model,
        experiment.observation,
        dump,
        utterances,
        max_frames=arguments.max_frames,
        chunk_frames=arguments.chunk_frames,
        seed=arguments.seed,
        samples=1 if model.bound == "exact" else arguments.iwae_samples,
    )
    bar = tqdm(scores, total=len(utterances), unit="utt", disable=not sys.stderr.isatty())
    results.write(arguments.out, job, bar, inputs)


def _merge(arguments: Any) -> None:
    from speechlvm.experiment.load import config_of, load_experiment
    from speechlvm.scoring import results

    experiment = load_experiment(arguments.exp, coding=arguments.coding)
    model, provenance = experiment.model, experiment.provenance
    bound = model.bound if arguments.iwae_samples == 1 or model.bound == "exact" else f"iwae-{arguments.iwae_samples}"
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
            "bound": bound,
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
