"""Stages 4 and 9: likelihoods that need no trained network: uniform, optimal DMoL, FLAC and other codecs, adaptive."""

from pathlib import Path
from typing import Any

from speechlvm.bin.cli import add_sharding, make_parser, run_main, run_sharded
from speechlvm.bin.inputs import check_done
from speechlvm.utils.errors import ConfigError, UserError
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
    parser.add_argument("--name", required=True, help=f"one of {', '.join(sorted(BASELINES))}, or a codec")
    parser.add_argument("--codecs", type=Path, help="YAML file of external codecs (utils/conf/codecs.yaml)")
    parser.add_argument("--train", type=Path, required=True, help="dump of the training set, to fit the baseline")
    parser.add_argument("--dump", type=Path, required=True, help="dump of the set to score")
    parser.add_argument(
        "--coding", default="mulaw", help="coding to score in (ignored by codecs and adaptive: always PCM)"
    )
    parser.add_argument("--out", type=Path, required=True, help="output directory")
    add_sharding(parser)
    arguments = parser.parse_args(argv)
    check_done(arguments.train, arguments.dump)
    inputs = {
        "name": arguments.name,
        "coding": arguments.coding,
        "train": hash_file(arguments.train / "info.json"),
        "dump": hash_file(arguments.dump / "info.json"),
    }
    known = _codecs(arguments) if arguments.codecs else BASELINES
    if arguments.name not in known:
        raise ConfigError(f"--name '{arguments.name}': expected one of {', '.join(sorted(known))}")
    if arguments.codecs:
        codec = _build(arguments)
        inputs |= {"commands": codec.commands.model_dump(), "version": codec.version()}

    return run_sharded(
        arguments,
        arguments.out,
        inputs,
        write=lambda job, inputs: _score(arguments, job, inputs),
        merge=lambda: _merge(arguments),
    )


def _codecs(arguments: Any) -> dict[str, Any]:
    from speechlvm.compression.external import load_codecs

    return load_codecs(arguments.codecs)


def _build(arguments: Any) -> Any:
    from importlib import import_module

    from speechlvm.coding import build_coding
    from speechlvm.data.dumps import open_dump

    if arguments.codecs:
        from speechlvm.compression.external import ExternalCodec

        return ExternalCodec(arguments.name, _codecs(arguments)[arguments.name], open_dump(arguments.dump).rate_hz)
    module, name = BASELINES[arguments.name]
    dump = open_dump(arguments.train)
    return getattr(import_module(module), name).fit(dump.histogram, build_coding(arguments.coding))


def _score(arguments: Any, job: int, inputs: dict[str, Any]) -> None:
    from speechlvm.data.dumps import open_dump
    from speechlvm.data.dumps.dump import share_of
    from speechlvm.scoring import results
    from speechlvm.scoring.accounting import UtteranceScore

    baseline, dump = _build(arguments), open_dump(arguments.dump)

    def score(utterance: str) -> UtteranceScore:
        try:
            return UtteranceScore(utterance, dump.records[utterance].frames, baseline.nats(dump.read(utterance)))
        except UserError as error:
            raise UserError(f"{utterance}: {error}") from error

    utterances = share_of(sorted(dump.records), job, arguments.nj)
    results.write(arguments.out, job, map(score, utterances), inputs)


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
