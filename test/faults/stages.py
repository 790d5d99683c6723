"""Stages one by one and all in one go give the same; a stage that is complete does nothing, and quickly.

The second training takes other seconds than the first, and so its checkpoints have other hashes, which later stages
record. Hashes of files are therefore replaced by the files' names. Hours of training stand in what stage 10 writes,
which is not compared here (that it is a function of the results is seen where stage 10 is killed).
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path

from faults import results
from faults.campaign import Campaign
from faults.tiny import Step, Tiny

LIMIT_SECONDS = 2.0
SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
CLOCKS = {"seconds", "hours"}
OPTIONS = ("--models", "vrnn", "--nj", "2")


def run(campaign: Campaign) -> None:
    """Stages 1 to 10; 1 and 2 if the campaign is small."""
    tiny = campaign.tiny("0")
    last = 2 if campaign.small else 10
    tiny.restore(0)
    for stage in range(1, last + 1):
        _insist(tiny, _stages(stage, stage))
    alone = _named(tiny.work)
    for stage in range(1, last + 1):
        if not campaign.late():
            _again(campaign, tiny, stage)
    if campaign.late():
        campaign.note("stages: the time was over before all in one go")
        return
    tiny.restore(0)
    _insist(tiny, _stages(1, last))
    at_once = _named(tiny.work)
    names = sorted(name for name in alone.keys() | at_once.keys() if alone.get(name) != at_once.get(name))
    campaign.count("stages", "one by one, and all in one go", [f"{name}: other contents" for name in names], last)


def _stages(first: int, last: int) -> Step:
    return Step(f"stages {first} to {last}", "tiny", first, ("--stop_stage", str(last), *OPTIONS))


def _insist(tiny: Tiny, step: Step) -> None:
    status, text = tiny.run(step)
    if status != 0:
        raise RuntimeError(f"{step}: status {status}, undisturbed: {text[-3000:]}")


def _again(campaign: Campaign, tiny: Tiny, stage: int) -> None:
    """A complete stage: nothing is written, and nothing imported that takes time."""
    before = {path: path.stat().st_mtime_ns for path in _compared(tiny.work)}
    began = time.monotonic()
    status, text = tiny.run(_stages(stage, stage))
    seconds = time.monotonic() - began
    faults = [] if status == 0 else [f"status {status}: {text[-600:]!r}"]
    after = {path: path.stat().st_mtime_ns for path in _compared(tiny.work)}
    faults += [
        f"{path.relative_to(tiny.work)}: written again"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]
    slow = f", more than {LIMIT_SECONDS:g} s" if seconds > LIMIT_SECONDS else ""
    campaign.note(f"stages: stage {stage}, complete: {seconds:.2f} s{slow}")
    campaign.count("stages", "complete, again", [f"stage {stage}: {fault}" for fault in faults])


def _compared(work: Path) -> list[Path]:
    return list(results.files(work).values())


def _named(work: Path) -> dict[str, str]:
    """Digest of each file, with the names of files in place of their hashes; without what holds hours."""
    files = results.files(work)
    names = {hashlib.sha256(path.read_bytes()).hexdigest(): name for name, path in files.items()}
    found = {}
    for name, path in files.items():
        if _of_stage_10(name):
            continue
        if path.suffix == ".json" and "/checkpoints/" not in name:
            text = json.dumps(_without_clocks(json.loads(path.read_bytes()), "/runs/" in name), sort_keys=True)
            text = SHA256.sub(lambda found: names.get(found[0], found[0]), text)
            found[name] = hashlib.sha256(text.encode()).hexdigest()
        else:
            found[name] = results.digest(name, path)
    return found


def _of_stage_10(name: str) -> bool:
    return name in ("RESULTS.md",) or "/tables/" in name or "/figures/" in name or name.endswith("index.html")


def _without_clocks(value, of_a_run: bool):
    """JSON without seconds and hours; of a probe's run also without the hash of the hashes that it was made from."""
    if isinstance(value, dict):
        left_out = CLOCKS | ({"inputs"} if of_a_run else set())
        return {key: _without_clocks(item, of_a_run) for key, item in value.items() if key not in left_out}
    if isinstance(value, list):
        return [_without_clocks(item, of_a_run) for item in value]
    return value
