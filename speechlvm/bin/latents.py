"""Stage 6: extract posterior statistics of latents, or hidden states, from a set with a trained model.

For latents these are posterior means (the expected latents), standard deviations and KL per step and dimension, each
averaged over Monte Carlo samples. For models without latents they are deterministic states: "h" of an LSTM, and what
the layers of a WaveNet add to the skip sum.
"""

from pathlib import Path
from typing import Any

from speechlvm.bin.cli import add_sharding, make_parser, run_main, run_sharded
from speechlvm.bin.inputs import check_done, check_trained
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import bytes_in, check_space, hash_file, read_json


def main(argv: list[str] | None = None) -> int:
    """Extract the representations of one set."""
    parser = make_parser(__doc__)
    parser.add_argument("--exp", type=Path, required=True, help="experiment directory")
    parser.add_argument("--dump", type=Path, required=True, help="dump of the set")
    parser.add_argument("--out", type=Path, required=True, help="output directory")
    parser.add_argument(
        "--latent_samples",
        type=int,
        default=100,
        help="Monte Carlo samples of the latents per utterance; fewer if a set needs more than 1e11 random numbers",
    )
    parser.add_argument(
        "--statistics",
        nargs="+",
        default=["mean", "std", "kl"],
        choices=["mean", "std", "kl"],
        help="statistics of latents to keep",
    )
    parser.add_argument(
        "--names", nargs="+", help="representations, e.g. z1 or skip50; default: all, or the last layer of each block"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--minutes", type=float, help="use random utterances of this total duration; default: all")
    parser.add_argument(
        "--max_frames", type=int, help="maximum frames in memory; does not change results; default: by data and model"
    )
    parser.add_argument("--ngpu", type=int, default=0, help="number of GPUs, 0 or 1")
    add_sharding(parser)
    arguments = parser.parse_args(argv)
    counts = [arguments.latent_samples, 1 if arguments.max_frames is None else arguments.max_frames]
    if min(counts) < 1 or (arguments.minutes is not None and not arguments.minutes > 0):
        parser.error("--latent_samples and --max_frames must be at least 1, --minutes above 0")
    check_done(arguments.dump)
    inputs = {
        "model": hash_file(check_trained(arguments.exp)),
        "dump": hash_file(arguments.dump / "info.json"),
        "num_samples": arguments.latent_samples,
        "statistics": sorted({"mean", *arguments.statistics}),
        "names": arguments.names,
        "seed": arguments.seed,
        "minutes": arguments.minutes,
    }
    inputs["statistics"] = _statistics(arguments.out, inputs)
    return run_sharded(
        arguments,
        arguments.out,
        inputs,
        write=lambda job, inputs: _extract(arguments, job, inputs),
        merge=lambda: _merge(arguments),
    )


def _statistics(out: Path, inputs: dict[str, Any]) -> list[str]:
    """The statistics requested, or those of a complete store that has more: it is not remade to have fewer."""
    try:
        done = read_json(out / "done.json")
        known = done["statistics"]
        enough = set(inputs["statistics"]) <= set(known) and done == {**inputs, "statistics": known}
    except (UserError, KeyError, TypeError):
        return inputs["statistics"]
    return known if enough else inputs["statistics"]


def _extract(arguments: Any, job: int, inputs: dict[str, Any]) -> None:
    import sys

    from tqdm import tqdm

    from speechlvm.data.dumps import open_dump
    from speechlvm.data.dumps.dump import random_utterances, share_of
    from speechlvm.experiment.load import load_experiment, training_device
    from speechlvm.latents import extract, store

    experiment = load_experiment(arguments.exp, training_device(arguments.ngpu))
    dump = open_dump(arguments.dump)
    experiment.observation.check(dump)
    of_all_jobs = random_utterances(dump, arguments.minutes)
    utterances = share_of(of_all_jobs, job, arguments.nj)
    least = extract.least_hop_frames(dump)
    described = extract.representations(experiment.model, arguments.statistics, least, arguments.names)
    lengths = [dump.records[utterance].frames for utterance in of_all_jobs]
    needed = store.expected_bytes(described, lengths)
    check_space(arguments.out, needed, "representations", bytes_in(arguments.out))
    samples = extract.affordable_samples(experiment.model, lengths, arguments.latent_samples)
    if samples < arguments.latent_samples:
        print(
            f"{arguments.out}: {samples} samples of the latents instead of {arguments.latent_samples}, which need "
            f"more than {extract.MOST_DRAWN:.0e} random numbers"
        )
    items = extract.extract_dump(
        experiment.model,
        experiment.observation,
        dump,
        utterances,
        described,
        samples=samples,
        seed=arguments.seed,
        max_frames=arguments.max_frames,
    )
    bar = tqdm(items, total=len(utterances), unit="utt", disable=not sys.stderr.isatty())
    store.write(arguments.out, job, bar, described, inputs)


def _merge(arguments: Any) -> None:
    from speechlvm.data.dumps import open_dump
    from speechlvm.data.dumps.dump import random_utterances
    from speechlvm.experiment.export import name_of
    from speechlvm.experiment.load import load_experiment
    from speechlvm.latents import extract, store

    model, dump = load_experiment(arguments.exp).model, open_dump(arguments.dump)
    lengths = [dump.records[utterance].frames for utterance in random_utterances(dump, arguments.minutes)]
    samples = extract.affordable_samples(model, lengths, arguments.latent_samples)
    about = {"source": name_of(arguments.exp), "num_samples": samples}
    info = store.merge(arguments.out, arguments.nj, {**store.about_dump(arguments.dump), **about})
    for r in info["representations"]:
        print(f"{arguments.out}: {r['name']}: {r['dimensions']} numbers every {r['hop_frames']} frames")


if __name__ == "__main__":
    run_main(main)
