"""The command line of every job runner: Kaldi's calling convention."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

WRONG_USAGE, INTERRUPTED = 2, 75
GRACE_SECONDS = 120.0  # for a training step and a checkpoint, before jobs are killed

HELP = """
JOB may be any name; it is replaced by the job's number in the path of the log and in the command. Options:
  --num-threads N      CPUs of each job (default 1; 0: all of its machine)
  --gpu N              GPUs of each job on each node (default 0: none visible)
  --num-nodes N        machines of each job (default 1); with more, the command is started once on each, with
                       MASTER_ADDR, MASTER_PORT and NUM_NODES in its environment
  --mem 8G             memory of each job on each node
  --time 2:00:00       time limit of each job: [days-]hours:minutes:seconds, or a number and its unit: 2h, 90m, 600s
  --max-jobs-run N     maximum number of concurrent jobs
  --requeue true       requeue a job that exits with 75 after a warning by the scheduler
  --config FILE        mapping of these options to those of the scheduler

Each job appends its output to its log, between a header (host, start, command) and a footer (exit status,
duration). Exit status: 0 for success; 2 for wrong usage, here or in all failed jobs; 75 if interrupted, or if all
failed jobs exited with 75 (run the same command again); 1 for any other failure. Failed jobs are listed, with the
last lines of the first three logs.
"""


class UsageError(Exception):
    """The command line, or a file given in it, is wrong; the message says how."""

    exit_status = WRONG_USAGE


class RunnerError(UsageError):
    """The jobs cannot be run at present; the message says why, and what to do."""

    exit_status = 1


@dataclass
class Call:
    """A parsed command line.

    Attributes:
        log: path of the logs, with `name` as placeholder for the number of the job.
        command: program and arguments, likewise.
        name: placeholder for the number of the job, such as JOB; None if there is none.
        jobs: numbers of the jobs.
        options: normalised values of the options given: `num_threads` and other counts in digits, `mem` in megabytes
            ("8192M"), `time` as hours:minutes:seconds, `requeue` as "true" or "false".
    """

    log: str
    command: list[str]
    name: str | None = None
    jobs: range = range(1, 2)
    options: dict[str, str] = field(default_factory=dict)

    def of_job(self, job: int, text: str) -> str:
        """`text` with the placeholder replaced by the number of the job."""
        return text.replace(self.name, str(job)) if self.name else text

    def number(self, option: str, default: int | None = None) -> int | None:
        """The value of an option that is an integer."""
        return int(self.options[option]) if option in self.options else default


def parse(arguments: list[str], usage: str, *, further: bool = False) -> Call:
    """Parses options and JOB=a:b, in any order, then the log and the command.

    Args:
        arguments: arguments without the name of the program.
        usage: text that --help prints above the options.
        further: whether other options are allowed; their values are not checked here.

    Raises:
        UsageError: wrong usage.
    """
    call = Call(log="", command=[])
    rest = list(arguments)
    while rest:
        word = rest[0]
        if word in ("-h", "--help"):
            print(usage.strip() + "\n" + HELP.rstrip())
            raise SystemExit(0)
        if word.startswith("-"):
            if not re.fullmatch(r"--[A-Za-z][A-Za-z0-9_-]*", word) or not (further or option_name(word) in CHECKS):
                known = ", ".join("--" + name.replace("_", "-") for name in CHECKS)
                raise UsageError(f"unknown option {word!r}; expected {known}")
            if len(rest) < 2:
                raise UsageError(f"{word} requires a value")
            call.options[option_name(word)] = check(option_name(word), rest[1])
            del rest[:2]
        elif match := re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)=([0-9]{1,6})(?::([0-9]{1,6}))?", word):
            if call.name:
                raise UsageError(f"{word!r}: jobs were already given as {call.name}=...")
            first, last = int(match[2]), int(match[3] or match[2])
            if not 1 <= first <= last:
                raise UsageError(f"{word!r}: jobs are numbered from 1, e.g. {match[1]}=1:4")
            call.name, call.jobs = match[1], range(first, last + 1)
            del rest[0]
        elif re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=.*", word):
            raise UsageError(f"{word!r}: expected NAME=first:last, e.g. JOB=1:4")
        else:
            break
    if len(rest) < 2:
        raise UsageError("expected a log file and a command; see --help")
    call.log, call.command = rest[0], rest[1:]
    if len(call.jobs) > 1 and call.name not in call.log:
        raise UsageError(f"{len(call.jobs)} jobs would share the log {call.log}; put {call.name} into it")
    return call


def option_name(word: str) -> str:
    """--num-threads -> num_threads."""
    return word.lstrip("-").replace("-", "_")


def check(option: str, text: str) -> str:
    """The normalised value of an option.

    Raises:
        UsageError: invalid value.
    """
    return CHECKS[option](f"--{option.replace('_', '-')} {text!r}", text) if option in CHECKS else text


def _count(least: int) -> Callable[[str, str], str]:
    def read(given: str, text: str) -> str:
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < least:
            raise UsageError(f"{given}: expected an integer of at least {least}")
        return str(int(text))

    return read


def _memory(given: str, text: str) -> str:
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([MGT])B?", text, re.IGNORECASE)
    if not match or float(match[1]) == 0:
        raise UsageError(f"{given}: expected a size such as 8G")
    return f"{max(1, round(float(match[1]) * {'M': 1, 'G': 1 << 10, 'T': 1 << 20}[match[2].upper()]))}M"


def _time(given: str, text: str) -> str:
    clock = re.fullmatch(r"(?:([0-9]{1,4})-)?([0-9]{1,4}):([0-5][0-9]):([0-5][0-9])", text)
    number = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    seconds = 0
    if clock:
        days, hours, minutes, rest = (int(part or 0) for part in clock.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    elif number:
        seconds = int(number[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[number[2]]
    if not seconds:
        raise UsageError(f"{given}: expected a time such as 2:00:00 (hours, minutes, seconds) or 2h")
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _truth(given: str, text: str) -> str:
    if text not in ("true", "false"):
        raise UsageError(f"{given}: expected true or false")
    return text


CHECKS: dict[str, Callable[[str, str], str]] = {
    "num_threads": _count(0),
    "gpu": _count(0),
    "num_nodes": _count(1),
    "mem": _memory,
    "time": _time,
    "max_jobs_run": _count(1),
    "requeue": _truth,
    "config": lambda _, text: text,
}
