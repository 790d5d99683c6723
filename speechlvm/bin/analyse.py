"""Stage 7: analyse representations: classification of phones, speakers' gender and height; information per level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speechlvm.bin.cli import add_check, make_parser, positive, run_main, status_if_decided
from speechlvm.bin.inputs import fingerprint
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import SKIPPED, hash_file, invalidate, is_done, mark_done, mark_undone, read_json, write_json

# What each analysis reads of a data directory.
FILES = {
    "phones": ("utt2spk", "phones"),
    "gender": ("utt2spk", "spk2gender"),
    "height": ("utt2spk", "spk2height", "spk2gender"),
    "levels": ("utt2spk",),
}
SHOWN_NOTES = 2


def main(argv: list[str] | None = None) -> int:
    """Write result.json and figures of one analysis."""
    parser = make_parser(__doc__)
    parser.add_argument("--analysis", choices=FILES, required=True)
    parser.add_argument("--latents", type=Path, nargs="+", required=True, help="representations of sets, pooled")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="data directories of the same sets")
    parser.add_argument("--spectra", type=Path, help="analyses of the spectra, shown in the same figures")
    parser.add_argument("--out", type=Path, required=True, help="directory of the results")
    parser.add_argument("--speaker", default="", help="speaker shown in figures of phones; default: the first")
    parser.add_argument(
        "--speakers", type=positive(int), default=10, help="number of speakers whose phones are analysed"
    )
    parser.add_argument("--classes", type=int, choices=(61, 39), default=61, help="phone classes; 39: folded")
    parser.add_argument("--skip_phones", nargs="*", default=[], help="phone labels to leave out, e.g. h# pau epi")
    parser.add_argument(
        "--largest_k", type=positive(int), help="largest number of neighbours; default: 50, or as many as there are"
    )
    parser.add_argument(
        "--optional", action="store_true", help="skip the analysis, with a message, if the data do not support it"
    )
    add_check(parser)
    arguments = parser.parse_args(argv)
    if len(arguments.latents) != len(arguments.data):
        parser.error(f"--latents has {len(arguments.latents)} directories and --data {len(arguments.data)}")
    inputs = _inputs(arguments)
    complete = is_done(arguments.out, inputs) or (arguments.optional and is_done(arguments.out, inputs, SKIPPED))
    status = status_if_decided(arguments, arguments.out, complete)
    if status is not None:
        return status

    from speechlvm.latents.labelled import Unsuitable

    try:
        result = _analyse(arguments)
    except Unsuitable as error:
        if not arguments.optional:
            raise UserError(str(error)) from error
        print(f"analysis '{arguments.analysis}' skipped: {error}")
        invalidate(arguments.out)
        mark_done(arguments.out, inputs, SKIPPED)
        return 0
    mark_undone(arguments.out)
    _draw(arguments, result)
    write_json(arguments.out / "result.json", result)
    mark_done(arguments.out, inputs)
    notes = result.get("notes", [])
    for line in notes[:SHOWN_NOTES]:
        print(line)
    if len(notes) > SHOWN_NOTES:
        print(f"and {len(notes) - SHOWN_NOTES} more: see {arguments.out / 'result.json'}")
    print(f"written: {arguments.out}")
    return 0


def _of_spectra(arguments: Any) -> Path | None:
    """The result of the same analysis of the spectra."""
    return arguments.spectra and arguments.spectra / arguments.analysis / "result.json"


def _inputs(arguments: Any) -> dict[str, Any]:
    """What the results are a function of."""
    files = [directory / name for directory in arguments.data for name in FILES[arguments.analysis]]
    spectra = _of_spectra(arguments)
    inputs = {
        "latents": [fingerprint(store) for store in arguments.latents],
        "data": [hash_file(path) if path.exists() else "missing" for path in files],
        # where the spectra's analysis was skipped, this one will be
        "spectra": spectra and (hash_file(spectra) if spectra.exists() else "missing"),
        **{key: getattr(arguments, key) for key in ("analysis", "largest_k")},
    }
    if arguments.analysis == "phones":
        inputs |= {key: getattr(arguments, key) for key in ("speaker", "speakers", "classes")}
        inputs["skip_phones"] = sorted(set(arguments.skip_phones))
    return inputs


def _analyse(arguments: Any) -> dict[str, Any]:
    from speechlvm.latents import levels, phones, speakers
    from speechlvm.latents.labelled import open_sets

    analysis, k = arguments.analysis, arguments.largest_k
    sets = open_sets(arguments.latents, arguments.data, labelled=analysis != "levels")
    if analysis == "levels":
        result = levels.analyse([item.store for item in sets])
    elif analysis == "phones":
        skipped = set(arguments.skip_phones)
        result = phones.analyse(sets, arguments.speaker, arguments.speakers, arguments.classes, k, skipped)
    elif analysis == "gender":
        result = speakers.analyse_gender(sets, k)
    else:
        result = speakers.analyse_height(sets, k)
    about = {"analysis": analysis, "source": sets[0].store.source, "set": [item.store.info["set"] for item in sets]}
    return about | result


def _draw(arguments: Any, result: dict[str, Any]) -> None:
    from speechlvm.reporting import latent_figures, level_figures

    figures = level_figures if arguments.analysis == "levels" else latent_figures
    spectra = _of_spectra(arguments)
    figures.draw(arguments.out, result, read_json(spectra) if spectra else None)


if __name__ == "__main__":
    run_main(main)
