"""Stage 5: prior samples, continuations of real speech and reconstructions, as wav files and pictures."""

from pathlib import Path
from typing import Any

from speechlvm.bin.cli import make_parser, run_main
from speechlvm.files import check_done, hash_file, is_done, mark_done, mark_undone, write_json


def main(argv: list[str] | None = None) -> int:
    """Sample from one trained model."""
    parser = make_parser(__doc__)
    parser.add_argument("--exp", type=Path, required=True, help="experiment directory")
    parser.add_argument("--dump", type=Path, required=True, help="dump that prefixes and originals come from")
    parser.add_argument("--out", type=Path, required=True, help="directory of wav files and pictures")
    parser.add_argument("--count", type=int, default=4, help="samples of each kind")
    parser.add_argument("--seconds", type=float, default=2.0, help="generated length of each")
    parser.add_argument("--prefix_seconds", type=float, default=1.0, help="real speech before a continuation")
    parser.add_argument("--seed", type=int, default=0, help="of all draws")
    parser.add_argument("--ngpu", type=int, default=0, help="0: on the CPU")
    arguments = parser.parse_args(argv)
    if arguments.count < 1 or arguments.seconds <= 0 or arguments.prefix_seconds <= 0:
        parser.error("--count, --seconds and --prefix_seconds are positive")
    check_done(arguments.dump)
    inputs = {
        "model": hash_file(arguments.exp / "checkpoints" / "best.json"),
        "dump": hash_file(arguments.dump / "info.json"),
        **{key: getattr(arguments, key) for key in ("count", "seconds", "prefix_seconds", "seed")},
    }
    if is_done(arguments.out, inputs):
        print(f"{arguments.out}: complete")
        return 0
    mark_undone(arguments.out)
    _sample(arguments)
    mark_done(arguments.out, inputs)
    return 0


def _sample(arguments: Any) -> None:
    from speechlvm.data.audio import write_wav
    from speechlvm.data.dump import Dump
    from speechlvm.errors import UserError
    from speechlvm.experiment import load_experiment, training_device
    from speechlvm.reporting.pictures import waveform_page
    from speechlvm.sampling import generate

    experiment = load_experiment(arguments.exp, training_device(arguments.ngpu))
    dump = Dump(arguments.dump)
    rate_hz = dump.rate_hz
    frames, prefix = round(arguments.seconds * rate_hz), round(arguments.prefix_seconds * rate_hz)
    long_enough = [u for u in sorted(dump.records) if dump.records[u].frames >= prefix]
    if not long_enough:
        raise UserError(f"{arguments.dump}: no utterance has {arguments.prefix_seconds} s; lower --prefix_seconds")
    # spread over the set, so that several speakers are heard
    chosen = long_enough[:: max(1, len(long_enough) // arguments.count)][: arguments.count]
    kinds = {
        "prior": generate.prior_samples(experiment, arguments.count, frames, arguments.seed),
        "continuation": generate.continuations(
            experiment, {u: dump.read(u, 0, prefix) for u in chosen}, frames, arguments.seed
        ),
        "reconstruction": generate.reconstructions(
            experiment, {u: dump.read(u, 0, frames) for u in chosen}, arguments.seed
        ),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    index = []
    for kind, audio in kinds.items():
        for item in audio:
            write_wav(arguments.out / f"{item.name}.wav", item.pcm, rate_hz)
            index.append({"name": item.name, "kind": kind, "log_likelihood_nats": item.log_likelihood_nats})
        if audio:
            title = f"{arguments.exp.parent.name}: {kind}"
            waveform_page(arguments.out / f"{kind}.png", [(a.name, a.pcm, a.marks) for a in audio], rate_hz, title)
    write_json(arguments.out / "samples.json", index)
    print(f"{arguments.out}: {len(index)} wav files")


if __name__ == "__main__":
    run_main(main)
