"""Stage 6: mel spectrogram, log-mel and MFCC of a set, for comparison with latents; sharded."""

from pathlib import Path
from typing import Any

from speechlvm.bin.cli import add_sharding, make_parser, run_main, run_sharded
from speechlvm.bin.inputs import check_done
from speechlvm.utils.files import bytes_in, check_space, hash_file
from speechlvm.utils.text import counted


def main(argv: list[str] | None = None) -> int:
    """Write the spectra of one set."""
    parser = make_parser(__doc__)
    parser.add_argument("--dump", type=Path, required=True, help="dump of the audio of the set")
    parser.add_argument("--out", type=Path, required=True, help="output directory")
    parser.add_argument("--minutes", type=float, help="use random utterances of this total duration; default: all")
    add_sharding(parser)
    arguments = parser.parse_args(argv)
    if arguments.minutes is not None and not arguments.minutes > 0:
        parser.error("--minutes must be above 0")

    from speechlvm.latents.spectra import SETTINGS

    check_done(arguments.dump)
    return run_sharded(
        arguments,
        arguments.out,
        {"dump": hash_file(arguments.dump / "info.json"), "minutes": arguments.minutes, **SETTINGS},
        write=lambda job, inputs: _write(arguments, job, inputs),
        merge=lambda: _merge(arguments),
    )


def _write(arguments: Any, job: int, inputs: dict[str, Any]) -> None:
    import sys

    from tqdm import tqdm

    from speechlvm.data.dumps import open_dump
    from speechlvm.data.dumps.dump import random_utterances, share_of
    from speechlvm.latents import spectra, store

    dump = open_dump(arguments.dump)
    of_all_jobs = random_utterances(dump, arguments.minutes)
    utterances = share_of(of_all_jobs, job, arguments.nj)
    needed = store.expected_bytes(spectra.REPRESENTATIONS, [dump.records[u].frames for u in of_all_jobs])
    check_space(arguments.out, needed, "spectra", bytes_in(arguments.out))
    items = spectra.of_dump(dump, utterances)
    bar = tqdm(items, total=len(utterances), unit="utt", disable=not sys.stderr.isatty())
    store.write(arguments.out, job, bar, spectra.REPRESENTATIONS, inputs)


def _merge(arguments: Any) -> None:
    from speechlvm.latents import store

    info = store.merge(arguments.out, arguments.nj, {**store.about_dump(arguments.dump), "source": "spectra"})
    print(
        f"{arguments.out}: {', '.join(r['name'] for r in info['representations'])} "
        f"of {counted(info['utterances'], 'utterances')}"
    )


if __name__ == "__main__":
    run_main(main)
