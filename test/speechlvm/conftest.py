"""Small dumps and experiments that several tests share."""

import numpy as np
import pytest
from devices import graphs, pretended, recorded_waits

from speechlvm.data.dumps import pcm
from speechlvm.data.dumps.dump import share_of
from speechlvm.utils.files import mark_done


def _speech_like(frames: int, seed: int) -> np.ndarray:
    """int16 AR(2) noise with a slowly varying gain."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal(frames + 2)
    signal = np.zeros(frames + 2)
    for t in range(2, frames + 2):
        signal[t] = 1.6 * signal[t - 1] - 0.8 * signal[t - 2] + noise[t]
    gain = 300 * (1.2 + np.sin(np.arange(frames) / 700.0 + seed))
    return np.clip(np.rint(signal[2:] * gain), -32768, 32767).astype(np.int16)


def write_dump(directory, lengths, seed=0, jobs=1):
    """A dump of len(lengths) utterances u00, u01, ..."""
    items = [(f"u{i:02d}", [_speech_like(length, seed + i)]) for i, length in enumerate(lengths)]
    for job in range(1, jobs + 1):
        pcm.write(directory, job, share_of(items, job, jobs), 16000, {"made": "here"})
    pcm.merge(directory, jobs, "data")
    mark_done(directory, {"made": "here"})
    return directory


@pytest.fixture
def speech_like():
    """speech_like(frames, seed) -> int16 samples; make_dump's utterance i has seed + i."""
    return _speech_like


@pytest.fixture(scope="session")
def make_dump_in():
    """make_dump_in(directory, lengths, seed=0, jobs=1) -> directory."""
    return write_dump


@pytest.fixture
def make_dump(tmp_path):
    """make_dump(name, lengths, seed=0, jobs=1) -> directory."""
    return lambda name, lengths, **options: write_dump(tmp_path / "dump" / name, lengths, **options)


TINY_CONFIG = """
model: lstm
model_conf: {stack: 16, hidden: 12, layers: 1}
coding: mulaw
distribution: dmol
distribution_conf: {components: 3}
data: {batch_frames: 4096, segment_frames: 1024}
training:
  learning_rate: {peak: 0.005, schedule: cosine, warmup_steps: 3}
  gradient_clip: 1.0
validation: {every_steps: 4}
limits: {steps: 12}
"""


@pytest.fixture
def tiny_config(tmp_path):
    """tiny_config(replacements) -> path of a YAML file."""

    def make(*replacements, name="tiny.yaml"):
        text = TINY_CONFIG
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text)
        return path

    return make


@pytest.fixture(params=["pretended", pytest.param("cuda", marks=pytest.mark.gpu)])
def other_device(request):
    """A device that is not the CPU: one that behaves like a GPU, and a GPU."""
    from speechlvm.experiment.load import training_device

    if request.param == "cuda":
        yield training_device(1)
    else:
        with pretended() as device:
            yield device


@pytest.fixture
def waits_in(other_device):
    """waits_in(function) -> what made the host wait for `other_device` while it ran."""
    return lambda function: recorded_waits(other_device, function)


@pytest.fixture
def graphs_on(monkeypatch):
    """graphs_on(types of devices, capture): devices that have graphs from now on, even for a few steps."""
    from speechlvm.modules import fast_chain, loop

    def use(types, capture=graphs.capture):
        replaced = {"GRAPH_DEVICES": types, "LEAST_STEPS": 8, "capture": capture, "warm_up": graphs.warm_up}
        replaced["_refused"] = set()
        for name, value in replaced.items():
            monkeypatch.setattr(loop, name, value)
        fast_chain._make_graphs.cache_clear()

    yield use
    fast_chain._make_graphs.cache_clear()
