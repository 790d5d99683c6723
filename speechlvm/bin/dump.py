"""Stage 2: write a set's audio as int16 archives with their histogram, or its mu-law codes or log-mel features."""

from pathlib import Path

from speechlvm.bin.cli import add_sharding, make_parser, run_main, run_sharded, start_logging

KINDS = ("pcm16", "mulaw", "logmel")


def main(argv: list[str] | None = None) -> int:
    """Dump one set."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data directory")
    parser.add_argument("--out", type=Path, required=True, help="directory of the dump")
    parser.add_argument("--kind", choices=KINDS, default="pcm16", help="what to write")
    parser.add_argument("--rate_hz", type=int, default=16000, help="sampling rate the audio must have")
    add_sharding(parser)
    arguments = parser.parse_args(argv)

    from speechlvm.data import features
    from speechlvm.data.audio import read_audio
    from speechlvm.data.directory import load_data_dir
    from speechlvm.data.dump import merge, part_is_done, share_of, write_part
    from speechlvm.files import hash_value

    start_logging()
    data = load_data_dir(arguments.data)
    stamps = [[u, str(path), *_stamp(path)] for u, path in sorted(data.wav.items())]
    inputs = {"kind": arguments.kind, "rate_hz": arguments.rate_hz, "audio": hash_value(stamps)}
    part_inputs = {**inputs, "jobs": arguments.nj}

    def audio(job: int):
        for utterance in share_of(sorted(data.wav), job, arguments.nj):
            yield utterance, read_audio(data.wav[utterance], arguments.rate_hz)

    if arguments.kind == "pcm16":
        steps = {
            "part_is_done": lambda job: part_is_done(arguments.out, job, part_inputs),
            "write_part": lambda job: write_part(arguments.out, job, audio(job), arguments.rate_hz, part_inputs),
            "merge": lambda: merge(arguments.out, arguments.nj, str(arguments.data)),
        }
    else:
        transform = features.TRANSFORMS[arguments.kind](arguments.rate_hz)
        steps = {
            "part_is_done": lambda job: part_is_done(arguments.out, job, part_inputs),
            "write_part": lambda job: features.write_part(
                arguments.out, job, ((u, transform(samples)) for u, samples in audio(job)), part_inputs
            ),
            "merge": lambda: features.merge(arguments.out, arguments.nj),
        }
    return run_sharded(arguments, arguments.out, inputs, **steps)


def _stamp(path: Path) -> tuple[int, int]:
    from speechlvm.errors import UserError

    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; run utils/validate_data_dir.sh on the data directory") from error
    return status.st_size, status.st_mtime_ns


if __name__ == "__main__":
    run_main(main)
