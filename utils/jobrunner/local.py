"""Jobs on this machine: starts them as CPUs and GPUs become free, and waits for all of them."""

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from jobrunner.attempt import Attempt, processors, thread_variables
from jobrunner.call import GRACE_SECONDS, INTERRUPTED, Call, UsageError, parse
from jobrunner.report import Failure, Interruption, clear_progress, last_lines, say, show_progress, summarise


@dataclass
class Job:
    """A running job."""

    number: int
    attempt: Attempt
    gpus: list[str]


class Runner:
    """Runs the jobs of a call."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.deadline: float | None = None
        self.next_progress = 0.0
        self.running: list[Job] = []
        self.failures: list[Failure] = []
        gpus = call.number("gpu", 0)
        if call.number("num_nodes", 1) > 1:
            raise UsageError(f"--num-nodes {call.options['num_nodes']}: this runner has one machine; see utils/cmd.sh")
        self.free_gpus = visible_gpus() if gpus else []
        if gpus > len(self.free_gpus):
            raise UsageError(f"--gpu {gpus}: {len(self.free_gpus)} GPUs are visible on this machine")
        self.threads = call.number("num_threads", 1) or processors()
        at_once = max(1, processors() // self.threads)
        if gpus:
            # Jobs on GPUs only wait for GPUs, as their processors mostly feed these.
            at_once = len(self.free_gpus) // gpus
        self.at_once = min(at_once, call.number("max_jobs_run", at_once))

    def run(self) -> int:
        """All jobs; returns the exit status of the whole."""
        interruption = Interruption()
        waiting = list(self.call.jobs)
        try:
            while self.running or (waiting and not interruption.asked):
                while waiting and len(self.running) < self.at_once and not interruption.asked:
                    self.start(waiting.pop(0))
                time.sleep(0.02)
                if interruption.asked:
                    self.stop()
                for job in [job for job in self.running if job.attempt.process.poll() is not None]:
                    self.finish(job)
                self.show_progress()
        finally:
            self.signal_all(signal.SIGTERM)  # no job is left, unless a log could not be opened
            for job in self.running:
                job.attempt.process.wait()
        clear_progress()
        if interruption.asked:
            stopped = f"{len(self.failures)} of {len(self.call.jobs)} jobs stopped, {len(waiting)} not started"
            say(f"interrupted: {stopped}; run the same command again")
            return INTERRUPTED
        return summarise(self.call, self.failures)

    def show_progress(self) -> None:
        """Shows the last line of the log of a single job."""
        if time.monotonic() >= self.next_progress:
            self.next_progress = time.monotonic() + 0.5
            show_progress(lambda: last_lines(self.running[0].attempt.log)[-1] if len(self.running) == 1 else "")

    def stop(self) -> None:
        """Sends TERM to the process groups of the jobs once, and KILL after `GRACE_SECONDS`."""
        if self.deadline is None:
            self.deadline = time.monotonic() + GRACE_SECONDS
            if self.running:
                jobs = f"{len(self.running)} of {len(self.call.jobs)} jobs"
                say(f"interrupted: waiting for {jobs} to stop, at most {GRACE_SECONDS:.0f} s")
            self.signal_all(signal.SIGTERM)
        elif time.monotonic() > self.deadline:
            self.signal_all(signal.SIGKILL)

    def signal_all(self, number: int) -> None:
        for job in self.running:
            job.attempt.signal(number)

    def start(self, number: int) -> None:
        """Starts a job."""
        gpus = [self.free_gpus.pop(0) for _ in range(self.call.number("gpu", 0))]
        attempt = Attempt(
            [self.call.of_job(number, word) for word in self.call.command],
            Path(self.call.of_job(number, self.call.log)),
            {**os.environ, **thread_variables(self.threads), "CUDA_VISIBLE_DEVICES": ",".join(gpus)},
            f"{self.threads} threads, GPU {','.join(gpus) or 'none'}",
        )
        self.running.append(Job(number, attempt, gpus))

    def finish(self, job: Job) -> None:
        """Finishes the log of a job and releases its GPUs."""
        status = job.attempt.finish()
        self.free_gpus += job.gpus
        self.running.remove(job)
        if status:
            self.failures.append(Failure(job.number, status, job.attempt.log))


def visible_gpus() -> list[str]:
    """GPUs for jobs, as named in CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(i) for i in range(len(re.findall(r"^GPU ", listed.stdout, re.MULTILINE)))]


def main(arguments: list[str], usage: str) -> int:
    """Parses the command line, runs the jobs, and returns the exit status."""
    return Runner(parse(arguments, usage)).run()
