"""Stage 0: download, verify and unpack archives of corpora whose licences allow it."""

from pathlib import Path

from speechlvm.bin.cli import make_parser, run_main, start_logging


def main(argv: list[str] | None = None) -> int:
    """Download what is missing."""
    parser = make_parser(__doc__)
    parser.add_argument("--archives", type=Path, required=True, help="list of archives (YAML)")
    parser.add_argument("--only", default="", help="archives to download, separated by spaces; empty: all")
    parser.add_argument("--to", type=Path, required=True, help="directory to unpack into")
    parser.add_argument("--mirror", default="", help="base URL to use instead of the one in the list")
    arguments = parser.parse_args(argv)

    from speechlvm.data.corpora.download import ArchiveList, choose, download, load_archives
    from speechlvm.utils.lock import locked
    from speechlvm.utils.settings import validated

    start_logging()
    listed = load_archives(arguments.archives)
    if arguments.mirror:
        listed = validated(ArchiveList, {**listed.model_dump(), "base": arguments.mirror}, "--mirror")
    missing = []
    for archive in choose(listed, arguments.only.split(), str(arguments.archives)):
        if (arguments.to / archive.content).exists():
            print(f"{arguments.to}: {archive.name}: complete")
        else:
            missing.append(archive)
    if missing:
        with locked(arguments.to / "archives"):
            download(listed, missing, arguments.to)
    return 0


if __name__ == "__main__":
    run_main(main)
