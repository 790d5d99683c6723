"""Two runs at once: of preparations and trainings the second refuses; elsewhere nothing comes to harm."""

from __future__ import annotations

import re
import socket

from faults.campaign import Campaign
from faults.tiny import PATIENCE_SECONDS, STEPS, Tiny

LOCKED = (0, 1, 3)  # of STEPS: data preparations, a training
AT_ONCE = (2, 6, 9, 11, 13, 14, 16)  # the others, one of each stage
HOLDER = r"in use by {host} process (\d+) since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"


def run(campaign: Campaign) -> None:
    """Two runs of each step; of one preparation if the campaign is small."""
    tiny = campaign.tiny("0")
    for index in LOCKED[1:2] if campaign.small else LOCKED:
        if not campaign.late():
            tiny.reach(index + 1)
            _second_refuses(campaign, tiny, index)
    for index in () if campaign.small else AT_ONCE:
        if not campaign.late():
            tiny.reach(index + 1)
            _both_finish(campaign, tiny, index)


def _second_refuses(campaign: Campaign, tiny: Tiny, index: int) -> None:
    """The first is held in the middle; it is named; when it has been killed, its lock is free."""
    step, faults = STEPS[index], []
    tiny.restore(index)
    first = tiny.start(step, hold_at=max(1, tiny.operations[index] // 2), output="first")
    first.wait(PATIENCE_SECONDS, until=first.held)
    status, text = tiny.run(step)
    holder = re.search(HOLDER.format(host=re.escape(socket.gethostname())), text)
    if status != 1 or holder is None:
        faults.append(f"the second run: status {status}: {text[-600:]!r}")
    elif int(holder[1]) not in first.processes():
        faults.append(f"the second run names process {holder[1]}, which is not of the first")
    first.kill_all()
    campaign.say(f"second {step.name}: {holder[0] if holder else text[-300:]}")
    campaign.count("locks", f"second {step.name} in one directory", faults)
    status, text = tiny.run(step)
    faults = [] if status == 0 else [f"status {status}: {text[-600:]!r}"]
    faults += tiny.differences(index)
    campaign.count("locks", f"{step.name} after one that held the lock was killed", faults)


def _both_finish(campaign: Campaign, tiny: Tiny, index: int) -> None:
    """Both runs of a step at once, and it once more: the results are the same."""
    step, faults = STEPS[index], []
    tiny.restore(index)
    both = [tiny.start(step, output=f"run{number}") for number in (1, 2)]
    for running in both:
        status = running.wait(PATIENCE_SECONDS)
        running.kill_all()
        if status != 0:
            campaign.say(f"two runs of {step.name} at once: status {status}: {running.text()[-300:]}")
    faults += tiny.partial(index)
    status, text = tiny.run(step)
    faults += [] if status == 0 else [f"once more: status {status}: {text[-600:]!r}"]
    faults += tiny.differences(index)
    campaign.count("locks", f"{step.name}, two at once", faults)
