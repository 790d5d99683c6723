"""SIGKILL at any moment of any stage: the same command finishes, with the results of a run that nobody disturbed."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

from faults.campaign import Campaign
from faults.tiny import PATIENCE_SECONDS, STEPS, Tiny

WORKERS = 2
KILLS_IN_A_ROW = 3
ORPHANS_SECONDS = 120
TARGETS = ("everything",) * 6 + ("the runner",) * 2 + ("a child",) * 2


def run(campaign: Campaign) -> None:
    """Kills until there were as many as asked for, over all steps in turn."""
    if campaign.small:
        _work(campaign, 0, [2, 3], campaign.kills)
        return
    with ThreadPoolExecutor(WORKERS) as pool:
        share = -(-campaign.kills // WORKERS)
        order = list(range(len(STEPS)))
        for future in [pool.submit(_work, campaign, worker, order, share) for worker in range(WORKERS)]:
            future.result()


def _work(campaign: Campaign, worker: int, steps: list[int], kills: int) -> None:
    """One worker's share, in an experiment of its own."""
    tiny = campaign.tiny(str(worker))
    tiny.reach(max(steps) + 1)
    generator = random.Random(f"{campaign.seed} {worker}")
    # each worker begins elsewhere, so that a short campaign meets all steps
    steps = steps[worker * len(steps) // WORKERS :] + steps[: worker * len(steps) // WORKERS]
    done = 0
    while done < kills:
        for index in steps:
            if done >= kills or campaign.late():
                break
            done += Trial(campaign, tiny, index, generator).run(kills - done)
        if campaign.late():
            campaign.note(f"kill: the time was over after {done} of {kills} kills of worker {worker}")
            return


class Trial:
    """One step from the results of those before it: killed, run again, killed again, and finished."""

    lock = threading.Lock()

    def __init__(self, campaign: Campaign, tiny: Tiny, index: int, generator: random.Random) -> None:
        self.campaign, self.tiny, self.index, self.generator = campaign, tiny, index, generator
        self.step = STEPS[index]
        self.faults: list[str] = []
        self.kills: list[str] = []

    def run(self, most: int) -> int:
        """Returns the number of kills, at most `most`."""
        self.tiny.restore(self.index)
        for _ in range(min(most, self.generator.randint(1, KILLS_IN_A_ROW))):
            if not self._kill():
                break
        else:
            self._finish()
        self.faults += self.tiny.differences(self.index)
        where = f"{self.step.name} ({' '.join(self.step.options)})"
        story = "; ".join(self.kills)
        with self.lock:
            self.campaign.say(f"{where}: {story or 'not hit'}: {'VIOLATION' if self.faults else 'survived'}")
            faults = [f"{where}: killed {story}: {fault}" for fault in self.faults]
            if self.kills or faults:
                self.campaign.count("kill", self.step.name, faults, len(self.kills))
        return len(self.kills)

    def _kill(self) -> bool:
        """Start the step and kill it; False if it had ended before."""
        target = self.generator.choice(TARGETS)
        at_operation = self.generator.random() < 0.5
        if at_operation:
            number = self.generator.randint(1, max(1, self.tiny.operations[self.index]))
            running = self.tiny.start(self.step, hold_at=number)
            moment = f"at file operation {number}"
            running.wait(PATIENCE_SECONDS, until=running.held)
        else:
            running = self.tiny.start(self.step)
            running.wait(PATIENCE_SECONDS, until=lambda: " starts" in running.text())
            delay = self.generator.uniform(0, self.tiny.seconds[self.index])
            moment = f"after {delay:.2f} s"
            running.wait(delay)
        if running.process.poll() is not None:
            running.wait_for_all(ORPHANS_SECONDS)
            if running.process.returncode != 0:
                self.faults.append(f"run again: status {running.process.returncode}: {running.text()[-600:]!r}")
            return False
        self.kills.append(f"{target} {moment}")
        if target == "everything":
            running.kill_all()
        else:
            if target == "the runner":
                running.kill_runner()
            else:
                running.kill_one(self.generator)
            running.release()
            if not running.wait_for_all(ORPHANS_SECONDS):
                self.faults.append(f"{target} killed {moment}, and after {ORPHANS_SECONDS} s others still run")
                running.kill_all()
        self.faults += [f"after the kill of {target} {moment}: {line}" for line in self.tiny.partial(self.index)]
        return True

    def _finish(self) -> None:
        status, text = self.tiny.run(self.step)
        if status != 0:
            self.faults.append(f"run again: status {status}: {text[-600:]!r}")
