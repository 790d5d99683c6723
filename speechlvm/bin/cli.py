"""Entry point of all programs: common options, one-line errors, documented exit statuses."""

import argparse
import faulthandler
import json
import logging
import math
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speechlvm.utils.errors import ConfigError, Interrupted, UserError
from speechlvm.utils.files import disk_errors, is_done, mark_done, mark_undone, read_json
from speechlvm.utils.processes import STOP_SIGNALS
from speechlvm.utils.shards import damaged_shards


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all programs share; options can be written with underscores or dashes."""
    parser = _Parser(description=description, formatter_class=_Formatter, allow_abbrev=False)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, except None."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        without = action.default is None or action.default is False or action.default == ""
        return action.help if without else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args=None, namespace=None):
        args = sys.argv[1:] if args is None else args
        return super().parse_known_args([_underscored(argument) for argument in args], namespace)

    def error(self, message: str) -> None:
        self.exit(2, f"error: {self.prog}: {message}; see --help\n")


def _underscored(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def positive(kind: type) -> Callable[[str], Any]:
    """The `type` of an option that is a finite number above 0, int or float."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"'{text}': expected {_NUMBERS[kind]} above 0")
        return value

    return parse


_NUMBERS = {int: "an integer", float: "a number"}


def add_check(parser: Any) -> None:
    """Add the option --check, with which recipes skip complete stages without starting a job."""
    parser.add_argument("--check", action="store_true", help="only check: exit 0 if the results are complete, else 1")


def add_sharding(parser: argparse.ArgumentParser) -> None:
    """Add the options of programs whose work is divided into jobs and then merged."""
    parser.add_argument("--nj", type=int, default=1, help="number of jobs")
    step = parser.add_mutually_exclusive_group()
    step.add_argument("--job", type=int, help="run only this job, 1 .. nj")
    step.add_argument("--merge", action="store_true", help="only merge the shards of all jobs")
    add_check(step)


def status_if_decided(arguments: argparse.Namespace, out: Path, complete: bool) -> int | None:
    """Exit status if the results are complete, or with --check; None: there is work to do."""
    if complete:
        if not arguments.check:
            print(f"{out}: complete")
        return 0
    return 1 if arguments.check else None


def run_sharded(
    arguments: argparse.Namespace,
    out: Path,
    inputs: dict[str, Any],
    *,
    write: Callable[[int, dict[str, Any]], None],
    merge: Callable[[], None],
) -> int:
    """Run one job, or merge, or (with neither option) do both for all jobs; complete shards are kept.

    Args:
        arguments: parsed arguments, with the options of `add_sharding`.
        out: directory of the results.
        inputs: everything that determines the results; recorded in done.json.
        write: write(job, inputs) runs a job and writes its shard with `write_shard`.
        merge: merges all shards.
    """
    if arguments.nj < 1 or not 1 <= (arguments.job or 1) <= arguments.nj:
        raise ConfigError(f"--nj {arguments.nj} --job {arguments.job}: expected 1 <= job <= nj")
    damaged = damaged_shards(out)
    status = status_if_decided(arguments, out, is_done(out, inputs) and not damaged)
    if status is not None:
        return status
    mark_undone(out)
    shard_inputs = json.loads(json.dumps({**inputs, "jobs": arguments.nj}))
    for job in [arguments.job] if arguments.job else range(1, arguments.nj + 1):
        shard = out / f"shard.{job}.json"
        if job in damaged or not shard.exists() or read_json(shard).get("inputs") != shard_inputs:
            if arguments.merge:
                raise UserError(f"{out}: job {job} of {arguments.nj} has not been done; run it first")
            write(job, shard_inputs)
    if not arguments.job:
        merge()
        mark_done(out, inputs)
    return 0


def start_logging(path: Path | None = None) -> None:
    """Log lines with time and level to standard output, and append them to `path`."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if path is not None:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(_LogFile(path, encoding="utf-8"))
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        handlers=handlers,
        force=True,
    )


class _LogFile(logging.FileHandler):
    """A log file that reports disk errors in one line instead of a traceback per record."""

    def handleError(self, record: logging.LogRecord) -> None:
        with disk_errors(Path(self.baseFilename)):
            raise


def run_main(main: Callable[[], int | None]) -> None:
    """Run `main` and exit with its status.

    A `UserError` is printed as one line on standard error, and gives its own exit status; an error of the operating
    system likewise, with status 1. Ctrl-C, SIGTERM, SIGUSR1 and SIGUSR2 (sent by schedulers as a warning) give status
    75. With ``--debug`` among the arguments, the traceback is shown as well.
    """
    # oneDNN's kernels, which run LSTMs on CPUs, let the stack pointer point into the heap, and a signal would overwrite
    # what lies below. This gives handlers a stack of their own.
    faulthandler.enable(2)
    for number in STOP_SIGNALS:
        signal.signal(number, _interrupt)  # like Ctrl-C, so that temporary files are removed
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, every command seems to succeed
    try:
        status = main() or 0
    except (UserError, KeyboardInterrupt, OSError) as error:
        if "--debug" in sys.argv[1:]:
            import traceback

            traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):
            error = Interrupted("interrupted; run the same command again to finish")
        elif isinstance(error, OSError):
            remedy = "; check its permissions" if isinstance(error, PermissionError) else ""
            error = UserError(f"{error.filename or 'input or output'}: {error.strerror or error}{remedy}")
        try:
            print(f"error: {_printable(str(error))}", file=sys.stderr, flush=True)
        except OSError:  # the log is on a full disk, so only the exit status tells
            sys.stderr = None  # otherwise Python would try again at exit, and exit with 120
        status = error.exit_status
    raise SystemExit(status)


def _printable(text: str) -> str:
    """One line without control characters, which names of files and utterances may contain."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.splitlines()))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
