"""Networks over the adaptive reference: what is known is the same everywhere, and never of the future."""

import math

import numpy as np
import pytest
import torch

from speechlvm.data.dumps import open_dump
from speechlvm.data.dumps.dataset import Segment, read_batch
from speechlvm.distributions import build_distribution
from speechlvm.models import build_model
from speechlvm.models.adaptive import Adaptive
from speechlvm.models.bound import Series
from speechlvm.models.experts import FEATURES, KNOWN, ExpertSteps, of_utterance
from speechlvm.observation import AudioObservation, Statistics
from speechlvm.scoring.contract import CHECKS, Subject, shaken
from speechlvm.training import expert_segments
from speechlvm.training.expert_segments import ExpertSegments

OBSERVATION = AudioObservation("linear", Statistics(0.0, 0.1))
SYSTEMS = {
    "wavenet": {"stack": 1, "channels": 6, "layers_per_block": 3, "blocks": 1},
    "lstm": {"stack": 1, "hidden": 6, "mlp_layers": 1},
}


def build(name):
    """As training starts."""
    torch.manual_seed(0)
    distribution = build_distribution("dmol", {"components": 4}, OBSERVATION)
    model = build_model(name, {**SYSTEMS[name], "experts": "adaptive"}, 1, distribution)
    model.initialise_output(model.distribution.initial_bias(None, None))
    return model


def shown(pcm):
    data, lengths = torch.from_numpy(pcm)[None], torch.tensor([len(pcm)])
    return OBSERVATION.inputs(data, lengths), OBSERVATION.target(data), lengths


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("check", [name for name in CHECKS if name != "masses"])  # of the distribution's own test
def test_promises_are_kept(name, check):
    CHECKS[check](Subject.of(shaken(build(name)), OBSERVATION))


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_masses_of_a_frame_sum_to_one(name):
    model = shaken(build(name))
    pcm = torch.tensor([[300, -200, 0]], dtype=torch.int16)
    walked = []
    model.sample(3, _Keys(), OBSERVATION.inputs_of, choose=lambda p: walked.append(p) or OBSERVATION.target(pcm[:, :1]))
    codes = torch.arange(65536)[:, None]
    assert len(walked) == 3
    for parameters in walked:
        total = model.distribution.log_prob(parameters[0].expand(65536, -1), codes).exp().sum()
        assert abs(float(total) - 1) < 1e-9


class _Keys:
    """Noise of one row that nothing is drawn from."""

    device, dtype = torch.device("cpu"), torch.float64

    def __len__(self):
        return 1

    def uniform(self, stream, start, steps, dim):
        return torch.full((1, steps, dim), 0.5, dtype=torch.float64)


@pytest.mark.parametrize("name", SYSTEMS)
def test_training_starts_at_the_adaptive_reference(name, speech_like):
    pcm = speech_like(3000, 0)
    bound, _ = build(name)(*shown(pcm))
    nats = float(bound.log_likelihood.values.double().sum().detach())
    assert abs(nats - Adaptive().nats(pcm)) / len(pcm) / math.log(2) < 0.01


def test_steps_know_what_whole_utterances_know_to_the_bit(speech_like):
    pcm = speech_like(600, 1)
    whole = of_utterance(pcm)
    experts = build("lstm").experts
    inputs, target, _ = shown(pcm)
    first, state = experts.look(experts.initial_state(1, inputs.device), inputs[:, :257], target=target[:, :257])
    second, _ = experts.look(state, inputs[:, 257:], target=target[:, 257:])
    chunks = torch.cat([first, second], 1)[0].numpy()
    np.testing.assert_array_equal(chunks.astype(np.float32), whole)
    assert whole[:, KNOWN].sum() == pytest.approx(Adaptive().nats(pcm), rel=1e-5)
    steps = ExpertSteps(experts.initial_state(1, inputs.device))
    for t in range(len(pcm)):
        np.testing.assert_array_equal(steps._known[0, :KNOWN], chunks[t, :KNOWN])
        steps.push(inputs[:, t])


def test_what_is_known_of_a_frame_is_known_before_it(speech_like):
    pcm = speech_like(400, 2)
    other = pcm.copy()
    other[300:] += 50
    a, b = of_utterance(pcm), of_utterance(other)
    np.testing.assert_array_equal(a[:301, :KNOWN], b[:301, :KNOWN])
    assert (a[301:, :FEATURES] != b[301:, :FEATURES]).mean() > 0.5


def test_training_segments_have_their_past(make_dump, monkeypatch):
    dump = open_dump(make_dump("train", [900, 500]))
    segments = [Segment("u00", 300, 200), Segment("u01", 0, 150)]
    expected = [of_utterance(dump.read("u00"))[300:500], of_utterance(dump.read("u01"))[:150]]
    batch = read_batch(dump, segments, ExpertSegments(dump))
    np.testing.assert_array_equal(batch.beside[0], expected[0])
    np.testing.assert_array_equal(batch.beside[1, :150], expected[1])
    assert batch.beside.shape == (2, 200, KNOWN + 1) and not batch.beside[1, 150:].any()
    monkeypatch.setattr(expert_segments, "KEPT_BYTES", 0)
    for found, wanted in zip(ExpertSegments(dump)(segments), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    monkeypatch.setattr(expert_segments, "LEAD_FRAMES", 100)
    found = ExpertSegments(dump)(segments)[0]
    np.testing.assert_array_equal(found, of_utterance(dump.read("u00", 200, 500))[100:])
    assert np.abs(found - expected[0]).max() > 1e-3


@pytest.mark.parametrize("name", SYSTEMS)
def test_gradients_are_finite_beside_padding(name, speech_like):
    model = build(name)
    inputs, target, _ = shown(speech_like(40, 4))
    lengths = torch.tensor([40, 7])
    inputs, target = (
        inputs.repeat(2, 1, 1) * (torch.arange(40)[:, None] < lengths[:, None, None]),
        target.repeat(2, 1, 1),
    )
    model(inputs, target, lengths)[0].log_likelihood.values.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", SYSTEMS)
def test_hidden_states_are_those_of_the_likelihood(name, speech_like):
    """In chunks as in the whole, and the state after them scores what follows as it is scored after the likelihood."""
    model = build(name)
    inputs, target, _ = shown(speech_like(60, 5))
    names, lengths = list(model.hidden_chosen), torch.tensor([20])
    whole, _ = model.hidden_states(inputs, names)
    first, state = model.hidden_states(inputs[:, :40], names)
    second, _ = model.hidden_states(inputs[:, 40:], names, state)
    for level in names:
        torch.testing.assert_close(torch.cat([first[level], second[level]], 1), whole[level])
    _, expected = model(inputs[:, :40], target[:, :40], torch.tensor([40]))
    found, wanted = (model(inputs[:, 40:], target[:, 40:], lengths, state=s)[0] for s in (state, expected))
    torch.testing.assert_close(found.log_likelihood.values, wanted.log_likelihood.values)


def test_given_segments_score_as_part_of_the_whole(speech_like):
    """What training sees of a segment is what scoring sees there."""
    pcm = speech_like(700, 3)
    model = build("lstm")
    inputs, target, lengths = shown(pcm)
    state = model.initial_state(1)
    expected = model(inputs, target, lengths)[0].log_likelihood.values
    known = torch.from_numpy(of_utterance(pcm))[None]
    features = {"experts": Series(known, torch.ones(known.shape[:2], dtype=torch.bool), 1)}
    found, after = model(inputs, target, lengths, features=features, state=state)
    torch.testing.assert_close(found.log_likelihood.values, expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(after["experts"], state["experts"])
