"""Stage 7: durations of the phones of one speaker and of all (source A, figure 11), where data have `phones`."""

from pathlib import Path

from speechlvm.bin.cli import make_parser, run_main


def main(argv: list[str] | None = None) -> int:
    """Write figures/phone_durations.png and .pdf, and their quartiles as tables/phone_durations.csv."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="data directories with phones")
    parser.add_argument("--speaker", default="", help="whose durations stand above everybody's (default: the first)")
    parser.add_argument("--exp", type=Path, required=True, help="exp/<train_set>")
    arguments = parser.parse_args(argv)

    from speechlvm.data.directory import load_data_dir
    from speechlvm.errors import UserError
    from speechlvm.files import atomic_write
    from speechlvm.reporting import durations, formats

    directories = [load_data_dir(path) for path in arguments.data]
    for path, data in zip(arguments.data, directories, strict=True):
        if not data.phones:
            raise UserError(f"{path}: has no phones; give data directories that have them")
    speakers = sorted({data.utt2spk[utterance] for data in directories for utterance in data.phones})
    speaker = arguments.speaker or speakers[0]
    if speaker not in speakers:
        print(f"speaker {speaker} has no phones in {', '.join(map(str, arguments.data))}; shown: {speakers[0]}")
        speaker = speakers[0]
    one, everybody = durations.durations_ms(directories, speaker), durations.durations_ms(directories)
    panels = {f"speaker {speaker}": one, f"all {len(speakers)} speakers": everybody}
    durations.durations_figure(arguments.exp / "figures" / "phone_durations", panels)
    out = arguments.exp / "tables" / "phone_durations.csv"
    with atomic_write(out) as stream:
        stream.write(formats.csv_table(durations.summary(one, speaker) + durations.summary(everybody, "all")))
    print(f"written: {arguments.exp / 'figures' / 'phone_durations'}.png and .pdf, {out}")
    return 0


if __name__ == "__main__":
    run_main(main)
