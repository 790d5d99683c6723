"""Training on devices that are not the CPU: the same numbers, and one wait for the device in each step."""

import pytest
import torch

from speechlvm.data.dumps import open_dump
from speechlvm.experiment.config import load_config
from speechlvm.experiment.load import build
from speechlvm.observation import Observation
from speechlvm.training.trainer import Trainer

FIVO = (
    ("model: lstm", "model: vrnn"),
    ("{stack: 16, hidden: 12, layers: 1}", "{stack: 128, hidden: 4, latent: 2, state: 4}"),
)


@pytest.mark.parametrize(
    ("replaced", "settings"), [((), "accumulate: 2"), (FIVO, "particles: 2")], ids=["lstm", "fivo"]
)
def test_a_step_waits_once(make_dump, tiny_config, tmp_path, other_device, waits_in, replaced, settings):
    dumps = [open_dump(make_dump(name, [600, 500, 300])) for name in ("train", "valid")]
    path = tiny_config(*replaced, ("batch_frames: 4096, segment_frames: 1024", "batch_frames: 1000"),
                       ("gradient_clip: 1.0", f"gradient_clip: 1.0\n  {settings}"))  # fmt: skip
    config, found = load_config(path), []
    for device in (torch.device("cpu"), other_device):
        observation = Observation.of_dump(config.coding, dumps[0])
        model = build(config, observation, 0).to(device)
        observation = Observation.from_dict(observation.to_dict(), device)
        trainer = Trainer(config, model, observation, *dumps, tmp_path, 0)
        plan, steps = trainer._plan(), []
        for _ in range(2):
            batches, _ = next(plan)
            if device.type == "cpu":
                steps.append(trainer._step(batches))
            else:
                waits = waits_in(lambda: steps.append(trainer._step(batches)))  # noqa: B023
                assert len(waits) == 1, waits
        found.append([(nats, norm) for nats, norm, failure in steps if failure is None])
    assert len(found[0]) == 2
    for here, there in zip(*found, strict=True):
        assert there == pytest.approx(here, rel=1e-4)
