"""Stage 9: compress utterances of a set losslessly, decompress them in a new process, and compare every sample.

Writes the compressed file, utterances.slvm, and its sizes and times, result.json.
"""

import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from speechlvm import __version__
from speechlvm.bin.cli import add_check, make_parser, positive, run_main, status_if_decided
from speechlvm.bin.inputs import add_model, check_done, fingerprint_of_model
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import hash_file, invalidate, is_done, mark_done, read_json, write_json

FILE = "utterances.slvm"


def main(argv: list[str] | None = None) -> int:
    """Compress and decompress with one model."""
    parser = make_parser(__doc__)
    add_model(parser)
    parser.add_argument("--dump", type=Path, required=True, help="dump of the set")
    parser.add_argument("--out", type=Path, required=True, help="output directory")
    parser.add_argument(
        "--utterances", type=_number_or_all, default=32, help="number of utterances, spread evenly over the set, or all"
    )
    add_check(parser)
    arguments = parser.parse_args(argv)
    check_done(arguments.dump)
    inputs = {
        "model": fingerprint_of_model(arguments),
        "dump": hash_file(arguments.dump / "info.json"),
        "utterances": arguments.utterances,
        "version": __version__,
    }
    status = status_if_decided(arguments, arguments.out, is_done(arguments.out, inputs))
    if status is not None:
        return status
    invalidate(arguments.out)
    _make(arguments)
    mark_done(arguments.out, inputs)
    return 0


def _number_or_all(text: str) -> int | None:
    return None if text == "all" else positive(int)(text)


def _make(arguments: Any) -> None:
    from speechlvm.compression.codec import compress, load_codec, model_hash
    from speechlvm.compression.container import read_container
    from speechlvm.compression.source import source_of_dump
    from speechlvm.models.flac import FLAC

    experiment = None if arguments.adaptive else load_codec(arguments.exp)
    source, path = source_of_dump(arguments.dump, arguments.utterances), arguments.out / FILE
    model_hash(experiment)  # compiles before the timing begins
    began = time.monotonic()
    sizes = compress(experiment, source, path, None, lambda frames: None)
    encode_seconds = time.monotonic() - began
    decode_seconds = _compare(arguments, path)
    flac = FLAC(source.rate_hz)
    result = {
        "model": experiment.name if experiment else "adaptive",
        "system": experiment.config.model if experiment else "adaptive",
        "set": arguments.dump.name,
        "coding": experiment.config.coding if experiment else "linear",
        "bound": experiment.model.bound if experiment else "exact",
        "seed": experiment.provenance.seed if experiment else None,
        **asdict(sizes),
        "flac_bytes": sum(flac.bytes(source.read(utterance)) for utterance in source.frames),
        "encode_seconds": encode_seconds,
        "decode_seconds": decode_seconds,
        "rate_hz": source.rate_hz,
        "lanes": read_container(path)[0].lanes,
        "data_hash": read_json(arguments.dump / "info.json")["data_hash"],
        "verified": True,
    }
    write_json(arguments.out / "result.json", result)
    print(f"{path}: {sizes.utterances} utterances, {sizes.frames} frames, bit-identical when decompressed")
    print(sizes.describe(result["bound"]))
    for name, seconds in (("encoding", encode_seconds), ("decoding", decode_seconds)):
        speed = sizes.frames / seconds
        print(f"{name:18} {speed:9.0f} frames per second, {speed / source.rate_hz:.3g} times real time")


def _compare(arguments: Any, path: Path) -> float:
    """Decompress a file in a new process, which compares it with the dump; returns the seconds of decoding.

    Raises:
        UserError: it cannot be decompressed, or differs.
    """
    words = [path, "--dump", arguments.dump, *(["--exp", arguments.exp] if arguments.exp else [])]
    command = [sys.executable, "-m", "speechlvm.bin.decompress", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"{path}: decompression ended with status {done.returncode}"]
        raise UserError(lines[-1].removeprefix("error: "))
    return float(re.search(r"([0-9.]+) s$", done.stdout.strip())[1])


if __name__ == "__main__":
    run_main(main)
