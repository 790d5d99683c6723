"""Stage 7: phone durations of one speaker and of all (source A, figure 11), if the data have `phones`."""

from pathlib import Path

from speechlvm.bin.cli import add_check, make_parser, run_main, status_if_decided
from speechlvm.utils.files import atomic_write, hash_file, is_done, mark_done, mark_undone


def main(argv: list[str] | None = None) -> int:
    """Write durations/phone_durations.png and .pdf, and the quartiles as durations/phone_durations.csv."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="data directories with phones")
    parser.add_argument("--speaker", default="", help="speaker shown above the pooled speakers; default: the first")
    parser.add_argument("--exp", type=Path, required=True, help="exp/<train_set>")
    parser.add_argument("--allow_pipes", action="store_true", help="run the commands in wav.scp")
    add_check(parser)
    arguments = parser.parse_args(argv)

    files = [path / name for path in arguments.data for name in ("utt2spk", "phones", "wav.scp")]
    inputs = {
        "speaker": arguments.speaker,
        "data": [hash_file(path) if path.exists() else "missing" for path in files],
    }
    out = arguments.exp / "durations"
    status = status_if_decided(arguments, out, is_done(out, inputs))
    if status is not None:
        return status

    from speechlvm.data.kaldi.directory import load_data_dir
    from speechlvm.reporting import durations, formats
    from speechlvm.utils.errors import UserError

    directories = [load_data_dir(path) for path in arguments.data]
    for path, data in zip(arguments.data, directories, strict=True):
        if not data.phones:
            raise UserError(f"{path}: no phones; give data directories that have them")
    speakers = sorted({data.utt2spk[utterance] for data in directories for utterance in data.phones})
    speaker = arguments.speaker or speakers[0]
    if speaker not in speakers:
        print(f"speaker {speaker} has no phones in {', '.join(map(str, arguments.data))}; shown: {speakers[0]}")
        speaker = speakers[0]
    one, everybody = (durations.durations_ms(directories, who, arguments.allow_pipes) for who in (speaker, None))
    panels = {f"speaker {speaker}": one, f"all {len(speakers)} speakers": everybody}
    mark_undone(out)
    durations.durations_figure(out / "phone_durations", panels)
    with atomic_write(out / "phone_durations.csv") as stream:
        stream.write(formats.csv_table(durations.summary(one, speaker) + durations.summary(everybody, "all")))
    mark_done(out, inputs)
    print(f"written: {out}")
    return 0


if __name__ == "__main__":
    run_main(main)
