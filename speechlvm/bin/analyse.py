"""Stage 7: analyse representations: classification of phones, gender and height; information per level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechlvm.bin.cli import add_check, make_parser, positive, run_main, status_if_decided
from speechlvm.bin.inputs import fingerprint
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import SKIPPED, hash_file, invalidate, is_done, mark_done, mark_undone, read_json, write_json

if TYPE_CHECKING:
    from speechlvm.latents.labelled import Set

# The files of a data directory that each analysis reads.
FILES = {
    "levels": ("utt2spk",),
    "phones": ("utt2spk", "phones"),
    "gender": ("utt2spk", "spk2gender"),
    "height": ("utt2spk", "spk2height", "spk2gender"),
}
SHOWN_NOTES = 2


def main(argv: list[str] | None = None) -> int:
    """Write result.json and figures of each analysis; failure of one does not stop the others."""
    parser = make_parser(__doc__)
    parser.add_argument("--analysis", choices=FILES, nargs="+", required=True, help="analyses to run")
    parser.add_argument("--latents", type=Path, nargs="+", required=True, help="representations of sets, pooled")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="data directories of the same sets")
    parser.add_argument("--spectra", type=Path, help="--out of the analyses of spectra, shown in the same figures")
    parser.add_argument("--out", type=Path, required=True, help="output directory, with a folder for each analysis")
    parser.add_argument("--speaker", default="", help="speaker shown in figures of phones; default: the first")
    parser.add_argument(
        "--speakers", type=positive(int), default=10, help="number of speakers whose phones are analysed"
    )
    parser.add_argument("--classes", type=int, choices=(61, 39), default=61, help="phone classes; 39: folded")
    parser.add_argument("--skip_phones", nargs="*", default=[], help="phone labels to leave out, e.g. h# pau epi")
    parser.add_argument(
        "--largest_k", type=positive(int), help="maximum number of neighbours; default: 50, or as many as there are"
    )
    parser.add_argument(
        "--optional", action="store_true", help="skip analyses that the data do not support, with a message"
    )
    add_check(parser)
    arguments = parser.parse_args(argv)
    if len(arguments.latents) != len(arguments.data):
        parser.error(f"--latents has {len(arguments.latents)} directories and --data {len(arguments.data)}")
    stores = [fingerprint(store) for store in arguments.latents]
    inputs = {name: _inputs(arguments, name, stores) for name in arguments.analysis}
    incomplete = [name for name in inputs if not _is_complete(arguments, name, inputs[name])]
    status = status_if_decided(arguments, arguments.out, not incomplete)
    if status is not None:
        return status

    from speechlvm.latents.labelled import open_sets

    sets = open_sets(arguments.latents, arguments.data)
    errors: list[UserError] = []
    for name in incomplete:
        try:
            _analyse(arguments, name, sets, inputs[name])
        except UserError as error:
            errors.append(error)
    if errors:
        # analyses that share a cause raise the same message
        raise UserError("; ".join(dict.fromkeys(map(str, errors)))) from errors[0]
    return 0


def _inputs(arguments: Any, analysis: str, stores: list[list[str]]) -> dict[str, Any]:
    """Everything that determines the results."""
    files = [directory / name for directory in arguments.data for name in FILES[analysis]]
    spectra = _of_spectra(arguments, analysis)
    inputs = {
        "analysis": analysis,
        "latents": stores,
        "data": [hash_file(path) if path.exists() else "missing" for path in files],
        # if the analysis of spectra was skipped, this one will be, too
        "spectra": spectra and (hash_file(spectra) if spectra.exists() else "missing"),
        "largest_k": arguments.largest_k,
    }
    if analysis == "phones":
        inputs |= {key: getattr(arguments, key) for key in ("speaker", "speakers", "classes")}
        inputs["skip_phones"] = sorted(set(arguments.skip_phones))
    return inputs


def _of_spectra(arguments: Any, analysis: str) -> Path | None:
    """The result of the same analysis for the spectra."""
    return arguments.spectra and arguments.spectra / analysis / "result.json"


def _is_complete(arguments: Any, analysis: str, inputs: dict[str, Any]) -> bool:
    out = arguments.out / analysis
    return is_done(out, inputs) or (arguments.optional and is_done(out, inputs, SKIPPED))


def _analyse(arguments: Any, analysis: str, sets: Sequence[Set], inputs: dict[str, Any]) -> None:
    """Write the results of one analysis."""
    from speechlvm.latents.labelled import Unsuitable

    out = arguments.out / analysis
    try:
        result = _result(arguments, analysis, sets)
    except Unsuitable as error:
        if not arguments.optional:
            raise
        print(f"analysis '{analysis}' skipped: {error}")
        invalidate(out)
        mark_done(out, inputs, SKIPPED)
        return
    mark_undone(out)
    _draw(arguments, analysis, result)
    write_json(out / "result.json", result)
    mark_done(out, inputs)
    notes = result.get("notes", [])
    for line in notes[:SHOWN_NOTES]:
        print(line)
    if len(notes) > SHOWN_NOTES:
        print(f"and {len(notes) - SHOWN_NOTES} more: see {out / 'result.json'}")
    print(f"written: {out}")


def _result(arguments: Any, analysis: str, sets: Sequence[Set]) -> dict[str, Any]:
    from speechlvm.latents import levels, phones, speakers
    from speechlvm.latents.labelled import check_labelled

    k = arguments.largest_k
    if analysis != "levels":
        check_labelled(sets)
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


def _draw(arguments: Any, analysis: str, result: dict[str, Any]) -> None:
    from speechlvm.reporting import latent_figures, level_figures

    figures = level_figures if analysis == "levels" else latent_figures
    spectra = _of_spectra(arguments, analysis)
    figures.draw(arguments.out / analysis, result, read_json(spectra) if spectra else None)


if __name__ == "__main__":
    run_main(main)
