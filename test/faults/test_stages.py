"""Each stage is killed and stopped in the middle: the same command completes it, with the same results.

    SPEECHLVM_KILLS=20 bash test/run.sh --recipes test/faults

draws so many moments for each stage (one, in the middle, otherwise).
"""

import os
import random
import re
import signal
import socket

import pytest

from faults.tiny import STAGES, Tiny, previous

LOCKED = (1, 3)  # data preparation and training: two runs would write the same files


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return Tiny(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("seed", range(int(os.environ.get("SPEECHLVM_KILLS", "1"))))
@pytest.mark.parametrize("stage", [pytest.param(n, marks=[pytest.mark.recipe] if n > 3 else []) for n in STAGES])
def test_a_stage_that_is_killed_and_stopped_completes_with_the_same_results(tiny, stage, seed):
    tiny.reach(stage)
    tiny.restore(previous(stage))
    generator, count = random.Random(seed), tiny.operations[stage]
    middle = [max(1, count // 2), max(1, count // 4)]  # the latter of the rest
    kill_at, stop_at = [generator.randint(1, count) for _ in middle] if seed else middle

    running = tiny.start(stage, hold_at=kill_at)
    killed = running.wait_until_held()
    if killed and stage in LOCKED and not seed:
        status, text = tiny.run(stage)
        holder = re.search(rf"in use by {re.escape(socket.gethostname())} process (\d+) since \d{{4}}-", text)
        assert status == 1 and holder and int(holder[1]) in running.processes(), text
    running.kill_all()
    assert killed or running.process.returncode == 0, running.text()
    assert tiny.partial(stage) == []

    running = tiny.start(stage, hold_at=stop_at)
    if stopped := running.wait_until_held():
        os.kill(stopped, signal.SIGTERM)
        os.kill(stopped, signal.SIGCONT)
    assert running.wait() == (75 if stopped else 0), running.text()
    assert tiny.partial(stage) == []
    assert seed or (killed and stopped)

    status, text = tiny.run(stage)
    assert status == 0, text
    assert tiny.differences(stage) == []
    times = tiny.times()
    assert tiny.run(stage)[0] == 0
    assert tiny.times() == times  # nothing is written again
