"""Stage 8: probes, small recognisers on frozen representations, by size of the training data and by seed."""

from pathlib import Path
from typing import Any

from speechlvm.bin.cli import add_sharding, make_parser, positive, run_main, run_sharded
from speechlvm.bin.inputs import fingerprint
from speechlvm.latents.probes import SETS, USUAL_VOCABULARY
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import hash_file, hash_value, invalidate, read_json, remove_leftovers, write_json
from speechlvm.utils.shards import read_shards, remove_shards_beyond, write_shard

LABELS = {"phones": "phones", "units": "text", "frames": "phones"}
LENGTHS = "utt2num_samples"
SETTINGS = ("steps", "batch_steps", "hidden", "learning_rate")


def main(argv: list[str] | None = None) -> int:
    """Train and score probes of every representation of an experiment."""
    parser = make_parser(__doc__)
    for name in SETS:
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"representations of the {name} set")
        parser.add_argument(f"--{name}_data", type=Path, required=True, help=f"data directory of the {name} set")
    parser.add_argument("--out", type=Path, required=True, help="output directory")
    parser.add_argument("--tasks", nargs="+", choices=LABELS, default=list(LABELS), help="what to recognise")
    parser.add_argument(
        "--minutes",
        nargs="+",
        type=_size,
        default=["10", "60", "all"],
        help="minutes of labelled training data, or all",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="random seeds; one run for each")
    parser.add_argument(
        "--vocabulary",
        type=positive(int),
        help="number of sentencepiece units; default: 100, or the nearest number that the transcripts support",
    )
    parser.add_argument("--steps", type=positive(int), default=5000, help="optimiser steps of each probe")
    parser.add_argument("--batch_steps", type=positive(int), default=4000, help="batch size in steps of 16 ms")
    parser.add_argument("--hidden", type=positive(int), default=256, help="hidden units of recognisers, per direction")
    parser.add_argument("--learning_rate", type=positive(float), default=2e-3, help="peak learning rate")
    parser.add_argument("--spectra", type=Path, help="probe results of the spectra, drawn in the same figures")
    parser.add_argument("--optional", action="store_true", help="leave out tasks for which the data have no labels")
    parser.add_argument("--ngpu", type=int, default=0, help="number of GPUs, 0 or 1")
    add_sharding(parser)
    arguments = parser.parse_args(argv)
    tasks = _with_labels(arguments)
    if not tasks:  # reported above, by every call, as nothing is written
        if not arguments.check:
            invalidate(arguments.out)
        return 1 if arguments.check else 0
    inputs = _inputs(arguments, tasks)
    return run_sharded(
        arguments,
        arguments.out,
        inputs,
        write=lambda job, inputs: _probe(arguments, job, inputs),
        merge=lambda: _merge(arguments, inputs),
    )


def _size(text: str) -> str:
    """Check a size: a number of minutes, or "all"."""
    if text != "all":
        positive(float)(text)
    return text


def _inputs(arguments: Any, tasks: list[str]) -> dict[str, Any]:
    """Everything that determines the results."""
    files = {LABELS[task] for task in tasks} | {LENGTHS}
    spectra = arguments.spectra and arguments.spectra / "result.json"
    return {
        "tasks": tasks,
        "minutes": list(dict.fromkeys(arguments.minutes)),
        "seeds": list(dict.fromkeys(arguments.seeds)),
        "stores": {s: fingerprint(getattr(arguments, s)) for s in SETS},
        "data": {name: {s: hash_file(getattr(arguments, f"{s}_data") / name) for s in SETS} for name in sorted(files)},
        "settings": {name: getattr(arguments, name) for name in SETTINGS},
        "vocabulary": (arguments.vocabulary or USUAL_VOCABULARY) if "units" in tasks else None,
        "spectra": hash_file(spectra) if spectra and spectra.exists() else None,
    }


def _with_labels(arguments: Any) -> list[str]:
    """Tasks with label files; with --optional, missing files are reported and their tasks left out."""
    kept = []
    for task in dict.fromkeys(arguments.tasks):
        files = [getattr(arguments, f"{s}_data") / name for s in SETS for name in (LENGTHS, LABELS[task])]
        missing = next((path for path in files if not path.exists()), None)
        if missing is None:
            kept.append(task)
        elif not arguments.optional:
            raise UserError(f"{missing}: missing, and probe '{task}' needs it; leave it out of --tasks")
        elif not arguments.check:
            print(f"probe '{task}' skipped: {missing} is missing")
    return kept


def _probe(arguments: Any, job: int, inputs: dict[str, Any]) -> None:
    import sys

    from tqdm import tqdm

    from speechlvm.data.dumps.dump import share_of
    from speechlvm.experiment.load import training_device
    from speechlvm.latents.probes.runs import Probing
    from speechlvm.latents.probes.training import ProbeSettings

    device, settings = training_device(arguments.ngpu), ProbeSettings(**inputs["settings"])
    stores, data = ({s: getattr(arguments, f"{s}{end}") for s in SETS} for end in ("", "_data"))
    probing = Probing(stores, data, inputs["tasks"], arguments.vocabulary, arguments.optional)
    plan = probing.plan(inputs["minutes"], inputs["seeds"])
    results = []
    for run in tqdm(share_of(plan, job, arguments.nj), unit="probe", disable=not sys.stderr.isatty()):
        path = arguments.out / "runs" / f"{run.stem}.json"
        key = _key(inputs, run)
        known = read_json(path) if path.exists() else {}
        if known.get("inputs") != key:
            known = {"inputs": key, "result": probing.execute(run, settings, device)}
            write_json(path, known)
        results.append(known["result"])
    probing.write_units(arguments.out / "units.model")
    about = probing.describe(inputs["minutes"])
    with write_shard(arguments.out, job, inputs) as shard:
        shard.about |= {"about": about, "runs": results}


def _key(inputs: dict[str, Any], run: Any) -> str:
    """A hash of everything that determines the result of one run."""
    return hash_value(
        [
            inputs["stores"],
            [inputs["data"][name] for name in (LENGTHS, LABELS[run.task])],
            inputs["settings"],
            inputs["vocabulary"] if run.task == "units" else None,
            run.stem,
        ]
    )


def _merge(arguments: Any, inputs: dict[str, Any]) -> None:
    from speechlvm.latents.probes.runs import summarise
    from speechlvm.latents.probes.units import load_units
    from speechlvm.reporting import probes

    shards = read_shards(arguments.out, arguments.nj)
    runs = [run for shard in shards for run in shard["runs"]]
    settings = {**inputs["settings"], "vocabulary": inputs["vocabulary"]}
    for reason in shards[0]["about"]["left_out"].values():
        print(f"left out: {reason}")
    if "units" in shards[0]["about"]["tasks"]:
        settings["vocabulary"] = load_units((arguments.out / "units.model").read_bytes()).get_piece_size()
        if settings["vocabulary"] != inputs["vocabulary"]:
            print(
                f"units: {settings['vocabulary']} sentencepiece units, the number nearest to the default "
                f"{inputs['vocabulary']} that the transcripts of the training set support"
            )
    result = {**shards[0]["about"], "settings": settings, "runs": runs, "summary": summarise(runs)}
    write_json(arguments.out / "result.json", result)
    remove_shards_beyond(arguments.out, arguments.nj)
    remove_leftovers(arguments.out)
    if not runs:
        return
    panels = [result]
    if inputs["spectra"]:
        other = read_json(arguments.spectra / "result.json")
        if other["settings"] == settings:
            panels.append(other)
        else:
            print(f"{arguments.spectra}: not drawn, since these probes were trained with other settings")
    probes.probes_figure(arguments.out / "error_rates", panels)
    print(probes.describe(result))


if __name__ == "__main__":
    run_main(main)
