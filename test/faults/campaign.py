"""What a campaign of faults was asked for, and what came of it."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Campaign:
    """Options, counts and violations.

    Attributes:
        directory: for experiments.
        seed: of all draws.
        kills: how many of the kind "kill".
        deadline: of time.monotonic(); kinds stop drawing faults then.
        small: only a sample of each fault, for the tests.
        experiments: those of `tiny`, whose undisturbed results are made once.
        counts: (kind, what) -> [injected, survived].
        violations: one line each.
    """

    directory: Path
    seed: int = 1
    kills: int = 200
    deadline: float = float("inf")
    small: bool = False
    experiments: dict[str, Any] = field(default_factory=dict)
    counts: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    violations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def tiny(self, name: str) -> Any:
        """The tiny recipe in a folder of this name; kinds that use one after the other may share it."""
        from faults.tiny import Tiny

        if name not in self.experiments:
            self.experiments[name] = Tiny(self.directory / f"tiny{name}")
        return self.experiments[name]

    def count(self, kind: str, what: str, faults: list[str], injected: int = 1) -> None:
        """Note faults that were injected, and what was wrong afterwards, if anything was."""
        counts = self.counts[kind, what]
        counts[0] += injected
        counts[1] += 0 if faults else injected
        for fault in faults:
            line = f"{kind}: {what}: {fault}"
            self.violations.append(line)
            print(f"VIOLATION: {line}", flush=True)

    def note(self, line: str) -> None:
        """A figure that is printed below the table."""
        self.notes.append(line)
        self.say(line)

    def say(self, line: str) -> None:
        """Progress."""
        print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)

    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.deadline

    def table(self) -> str:
        """Counts by kind, in Markdown."""
        lines = ["| kind | fault | injected | survived |", "|------|-------|----------|----------|"]
        for (kind, what), (injected, survived) in self.counts.items():
            lines.append(f"| {kind} | {what} | {injected} | {survived} |")
        for kind in dict.fromkeys(kind for kind, _ in self.counts):
            own = [counts for (name, _), counts in self.counts.items() if name == kind]
            lines.append(f"| **{kind}** | all | {sum(c[0] for c in own)} | {sum(c[1] for c in own)} |")
        return "\n".join(lines)
