"""Mapping of options to those of a scheduler: a file in the syntax of Kaldi's conf/slurm.conf and conf/queue.conf.

    command sbatch                    program that submits, with options for all jobs
    default gpu=0                     default of an option
    option mem=* --mem=$0             replacement of --mem VALUE; $0 is the value
    option gpu=0                      replacement of one value, here nothing; must precede the line with *
    option queue=* --partition=$0     a custom option

Lines are split into words as in a shell (quotes protect spaces), but no shell expands them: words reach the scheduler
unchanged, whatever they or a value contain.
"""

import re
import shlex
from pathlib import Path

from jobrunner.call import Call, UsageError, check


class Config:
    """A configuration file.

    Raises:
        UsageError: it cannot be read, or a line is wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.command: list[str] = []
        self.defaults: dict[str, str] = {}
        self.options: dict[tuple[str, str], list[str]] = {}
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--config {path}: {getattr(error, 'strerror', None) or error}") from error
        for number, line in enumerate(text.splitlines(), 1):
            try:
                self._read(shlex.split(line, comments=True))
            except (ValueError, UsageError) as error:
                raise UsageError(f"{path}:{number}: {error}; see utils/jobrunner/config.py") from error
        if not self.command:
            raise UsageError(f"{path}: no 'command' line, e.g. 'command sbatch'")

    def _read(self, words: list[str]) -> None:
        match words:
            case []:
                pass
            case ["command", *command] if command:
                self.command = command
            case ["default", setting] if found := re.fullmatch(r"([a-z][a-z0-9_]*)=(.+)", setting, re.DOTALL):
                self.defaults[found[1]] = check(found[1], found[2])
            case ["option", setting, *template] if found := re.fullmatch(r"([a-z][a-z0-9_]*)=(.+)", setting, re.DOTALL):
                value = found[2] if found[2] == "*" else check(found[1], found[2])
                self.options[found[1], value] = template
            case _:
                raise UsageError(
                    f"expected 'command ...', 'default name=value' or 'option name=value ...', not {words}"
                )

    def arguments(self, call: Call) -> list[str]:
        """The scheduler's options for a call; options in `default` lines are added to the call.

        Raises:
            UsageError: no line for an option.
        """
        call.options = {**self.defaults, **call.options}
        arguments = []
        for option, value in {**USUAL, **call.options}.items():
            template = self.options.get((option, value), self.options.get((option, "*")))
            if template is not None:
                arguments += [word.replace("$0", value) for word in template]
            elif USUAL.get(option) != value and option != "max_jobs_run":
                dashed = option.replace("_", "-")
                raise UsageError(f"--{dashed} {value!r}: {self.path} has no line 'option {option}=* ...' for it")
        return arguments


USUAL = {"num_threads": "1", "gpu": "0", "num_nodes": "1", "requeue": "false"}  # if neither call nor file sets them
