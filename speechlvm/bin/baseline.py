"""Stages 4 and 9: likelihoods that need no trained network: uniform, optimal DMoL, FLAC, adaptive."""

from pathlib import Path
from typing import Any

from speechlvm.bin.cli import add_sharding, make_parser, run_main, run_sharded
from speechlvm.bin.inputs import check_done
from speechlvm.utils.files import hash_file

BASELINES = {
    "uniform": ("speechlvm.models.uniform", "Uniform"),
    "dmol": ("speechlvm.models.dmol_optimal", "DMoLOptimal"),
    "flac": ("speechlvm.models.flac", "FLAC"),
    "flac-cli": ("speechlvm.models.flac", "FLACProgram"),
    "adaptive": ("speechlvm.models.adaptive", "Adaptive"),
}


def main(argv: list[str] | None = None) -> int:
    """Score one set with one baseline."""
    parser = make_parser(__doc__)
    parser.add_argument("--name", choices=sorted(BASELINES), required=True, help="which baseline")
    parser.add_argument("--train", type=Path, required=True, help="dump of the training set, to fit the baseline")
    parser.add_argument("--dump", type=Path, required=True, help="dump of the set to score")
    parser.add_argument("--coding", default="mulaw", help="whose cells are scored (not FLAC, adaptive: always PCM)")
    parser.add_argument("--out", type=Path, required=True, help="directory of the results")
    add_sharding(parser)
    arguments = parser.parse_args(argv)
    check_done(arguments.train, arguments.dump)
    inputs = {
        "name": arguments.name,
        "coding": arguments.coding,
        "train": hash_file(arguments.train / "info.json"),
        "dump": hash_file(arguments.dump / "info.json"),
    }

    return run_sharded(
        arguments,
        arguments.out,
        inputs,
        write=lambda job, inputs: _score(arguments, job, inputs),
        merge=lambda: _merge(arguments),
    )


def _build(arguments: Any) -> Any:
    from importlib import import_module

    from speechlvm.coding import build_coding
    from speechlvm.data.dumps import open_dump

    module, name = BASELINES[arguments.name]
    dump = open_dump(arguments.train)
    return getattr(import_module(module), name).fit(dump.histogram, build_coding(arguments.coding))


def _score(arguments: Any, job: int, inputs: dict[str, Any]) -> None:
    from speechlvm.data.dumps import open_dump
    from speechlvm.data.dumps.dump import share_of
    from speechlvm.scoring import results
    from speechlvm.scoring.accounting import UtteranceScore

    baseline, dump = _build(arguments), open_dump(arguments.dump)
    scores = (
        UtteranceScore(utterance, dump.records[utterance].frames, baseline.nats(dump.read(utterance)))
        for utterance in share_of(sorted(dump.records), job, arguments.nj)
    )
    results.write(arguments.out, job, scores, inputs)


def _merge(arguments: Any) -> None:
    from speechlvm.scoring import results

    baseline = _build(arguments)
    result = results.merge(
        arguments.out,
        arguments.nj,
        {
            "model": arguments.out.parent.name,
            "system": arguments.name,
            "set": arguments.dump.name,
            "train_set": arguments.train.name,
            "coding": getattr(baseline, "coding", arguments.coding),
            "unit": "pmf",
            "bound": baseline.bound,
            "stack": None,
            "seed": None,
            "steps": None,
            "epochs": None,
            "hours": None,
            "parameters": getattr(baseline, "parameters", 0),
            "config_hash": None,
            **results.of_dump(arguments.dump),
        },
    )
    print(results.describe(result))


if __name__ == "__main__":
    run_main(main)
