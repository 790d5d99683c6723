"""A full disk at any moment of any stage: one line says what is needed and what is free, and a rerun completes.

The results lie on a file system in memory that is made as small as it has to be (by root). Elsewhere the size of single
files is limited instead.
"""

from __future__ import annotations

import contextlib
import random
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

from faults import results
from faults.campaign import Campaign
from faults.tiny import PATIENCE_SECONDS, STEPS, Tiny

AMPLE = "4g"
SHARES = ((0.3, 0.7), (0.0, 0.3), (0.7, 0.95))
"""Of what a step writes, that there is room for; one trial is drawn from each."""

MESSAGE = re.compile(
    r"^.*(?:error|local\.py): (\S+): .*?(\d+) bytes are needed.*?(\d+) (?:bytes )?are (?:free|allowed)", re.MULTILINE
)


def run(campaign: Campaign) -> None:
    """Each step with little, some and nearly enough space."""
    tiny = campaign.tiny("0")
    steps = [2] if campaign.small else range(len(STEPS))
    generator = random.Random(f"{campaign.seed} disk")
    with _small_disk(tiny.work) as resize:
        if resize is None:
            campaign.note("disk: no file system can be mounted here; the size of single files is limited instead")
        for low, high in SHARES[:1] if campaign.small else SHARES:
            for index in steps:
                if campaign.late():
                    campaign.note(f"disk: the time was over before {STEPS[index].name} with room for {low:.1f} of it")
                    return
                tiny.reach(index + 1)
                _trial(campaign, tiny, index, generator.uniform(low, high), resize)


@contextlib.contextmanager
def _small_disk(directory: Path) -> Iterator:
    """A function that gives `directory` a size in bytes; None where nothing can be mounted."""

    def mount(*words: str) -> int:
        command = ["mount", "-t", "tmpfs", "-o", *words, "tmpfs", str(directory)]
        return subprocess.run(command, check=False, capture_output=True).returncode

    if mount(f"size={AMPLE}"):
        yield None
        return
    try:
        yield lambda size: mount(f"remount,size={size}")
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def _trial(campaign: Campaign, tiny: Tiny, index: int, share: float, resize) -> None:
    """A step with too little space, and again with enough."""
    step = STEPS[index]
    where = f"{step.name} ({' '.join(step.options)}), room for {share:.2f} of it"
    before, after = tiny.digests[index], tiny.digests[index + 1]
    tiny.restore(index)
    with _room_for(tiny, index, share, resize):
        running = tiny.start(step)
        status = running.wait(PATIENCE_SECONDS)
        running.kill_all()
    text = running.text()
    faults = []
    if status == 0:  # pages of memory are shared out otherwise than bytes
        campaign.say(f"disk: {where}: there was enough")
    else:
        faults += [] if status == 1 else [f"status {status}"]
        found = MESSAGE.search(text)
        if found is None:
            faults.append(f"no line with path, bytes needed and bytes free: {text[-800:]!r}")
        elif "Traceback" in text:
            faults.append(f"a traceback: {text[-800:]!r}")
        faults += tiny.partial(index) + _left_behind(tiny.work) + _lying_marks(tiny.work, before, after)
        campaign.say(f"disk: {where}: {found[0].strip() if found else 'NO MESSAGE'}")
    status_again, again = tiny.run(step)
    if status_again != 0:
        faults.append(f"run again with enough space: status {status_again}: {again[-600:]!r}")
    faults += tiny.differences(index)
    if status != 0 or faults:
        campaign.count("disk", step.name, [f"{where}: {fault}" for fault in faults])


@contextlib.contextmanager
def _room_for(tiny: Tiny, index: int, share: float, resize) -> Iterator[None]:
    """Have space for a share of what a step writes, in all or in its largest file."""
    if resize is None:
        sizes = [path.stat().st_size for path in _new_files(tiny, index)]
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * max(sizes)), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return
    taken = sum(path.lstat().st_blocks for path in tiny.work.rglob("*")) * 512
    added = sum(-(-path.stat().st_size // 4096) * 4096 for path in _new_files(tiny, index))
    resize(taken + int(share * added) // 4096 * 4096 + 4096)
    try:
        yield
    finally:
        resize(AMPLE)


def _new_files(tiny: Tiny, index: int) -> list[Path]:
    """What a step adds or changes, as it is in the copy of its undisturbed results."""
    before, after = tiny.digests[index], tiny.digests[index + 1]
    return [tiny.root / "after" / str(index + 1) / name for name, digest in after.items() if before.get(name) != digest]


def _left_behind(work: Path) -> list[str]:
    return [f"{path.relative_to(work)}: left behind" for path in work.rglob(".*.tmp")]


def _lying_marks(work: Path, before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Each done.json that has been written although what it vouches for is not there."""
    found = []
    for name in after:
        if name.endswith("done.json") and (work / name).exists() and before.get(name) != after[name]:
            prefix = name.removesuffix("done.json")
            for other in (other for other in after if other.startswith(prefix)):
                path = work / other
                if not path.exists() or results.digest(other, path) != after[other]:
                    found.append(f"{name}: {other} is not what it vouches for")
    return found
