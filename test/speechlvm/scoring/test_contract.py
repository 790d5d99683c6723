"""The checks of a model's promises find what is broken: models that break one, and which checks see it."""

import pytest
import torch
from programs import call
from torch import nn

from speechlvm.bin import check_model
from speechlvm.distributions import build_distribution
from speechlvm.models.bound import Bound, Series
from speechlvm.models.lstm import LSTM
from speechlvm.models.vrnn import VRNN
from speechlvm.modules.frames import stack_frames
from speechlvm.observation import AudioObservation, Statistics
from speechlvm.scoring.contract import CHECKS, Broken, Subject, shaken


class Ahead(LSTM):
    """Each stack is predicted from the one behind it, too."""

    def _before(self, inputs, state, **of_experts):
        previous, known, last = super()._before(inputs, state, **of_experts)
        behind = torch.nn.functional.pad(stack_frames(inputs, self.stack)[:, 1:], (0, 0, 0, 1))
        return previous + 0.1 * behind, known, last


class Copying(LSTM):
    """Each stack is predicted from itself, too, in scoring."""

    def forward(self, inputs, target, lengths, **options):
        bound, state = super().forward(inputs, target, lengths, **options)
        values = bound.log_likelihood.values + 0.1 * inputs.squeeze(-1)
        return Bound(Series(values.masked_fill(~bound.log_likelihood.mask, 0.0), bound.log_likelihood.mask, 1)), state


class Counting(LSTM):
    """Padding is scored."""

    def forward(self, inputs, target, lengths, **options):
        return super().forward(inputs, target, torch.full_like(lengths, inputs.shape[1]), **options)


class Mixing(LSTM):
    """Rows of a batch see each other's past."""

    def predict(self, previous, state):
        return super().predict(previous + 0.1 * previous.mean(0), state)


class Forgetful(LSTM):
    """Scoring does not take up the memory of the chunk before."""

    def forward(self, inputs, target, lengths, *, state=None, **options):
        state = state and {**state, "h": torch.zeros_like(state["h"])}
        return super().forward(inputs, target, lengths, state=state, **options)


class Restarting(LSTM):
    """Sampling does not take up the memory of what was scored."""

    def _sample(self, draws, inputs_of, state):
        return super()._sample(draws, inputs_of, {**state, "h": torch.zeros_like(state["h"])})


class Otherwise(LSTM):
    """Sampling begins otherwise than scoring."""

    def _sample(self, draws, inputs_of, state):
        begins = not int(state["frames"][0])
        return super()._sample(draws, inputs_of, {**state, "stack": state["stack"] + 0.1 * begins})


class Improper(LSTM):
    """Every probability is too large."""

    def __init__(self, config, channels, distribution):
        log_prob = distribution.log_prob
        distribution.log_prob = lambda parameters, target: log_prob(parameters, target) + 0.01
        super().__init__(config, channels, distribution)


class Uncounted(LSTM):
    """The state does not count frames."""

    def forward(self, inputs, target, lengths, **options):
        bound, state = super().forward(inputs, target, lengths, **options)
        return bound, {**state, "frames": torch.zeros_like(state["frames"])}


class Unreported(VRNN):
    """The prior that sampling reports is not the one of scoring."""

    def sample(self, *arguments, **options):
        samples = super().sample(*arguments, **options)
        samples.log_prior["z1"].mul_(1.01)
        return samples


BROKEN = {
    Ahead: {"causality", "chunking", "state", "sampling"},
    Copying: {"causality", "masses", "state", "sampling"},
    Counting: {"padding"},
    Mixing: {"padding"},
    Forgetful: {"chunking"},
    Restarting: {"state"},
    Otherwise: {"sampling"},
    Improper: {"masses"},
    Uncounted: {"state"},
    Unreported: {"state", "sampling"},
}
CONF = {LSTM: {"stack": 4, "hidden": 6}, VRNN: {"stack": 4, "latent": 3, "hidden": 6, "state": 5, "mlp_layers": 2}}


def failed(cls, coding="mulaw8", distribution="dmol"):
    """Names of the checks that a model fails."""
    observation = AudioObservation(coding, Statistics(0.0, 0.1))
    torch.manual_seed(0)
    conf = CONF[VRNN if issubclass(cls, VRNN) else LSTM]
    model = cls(cls.Config(**conf), 1, build_distribution(distribution, {}, observation))
    subject, names = Subject.of(shaken(model), observation), set()
    for name, check in CHECKS.items():
        try:
            check(subject)
        except Broken:
            names.add(name)
    return names


@pytest.mark.parametrize(("cls", "names"), BROKEN.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_checks_find_what_is_broken(cls, names):
    assert failed(cls) == names


def test_densities_keep_all_promises():
    assert failed(LSTM, "normalised", "gaussian") == failed(VRNN, "normalised", "gaussian") == set()


def test_the_program_says_which_promise_is_broken(tiny_config, monkeypatch):
    good = call(check_model.main, "--config", tiny_config())
    assert good.returncode == 0
    assert good.stdout.splitlines() == [f"{name:10} ok" for name in CHECKS]
    monkeypatch.setattr("speechlvm.models.lstm.LSTM", Restarting)
    bad = call(check_model.main, "--config", tiny_config())
    assert bad.returncode == 1 and bad.stderr == "error: lstm: fails state; see MODELS.md\n"
    [line] = [line for line in bad.stdout.splitlines() if not line.endswith(" ok")]
    assert line.startswith("state      FAILS: the likelihood that sampling reports of frame ")

    class Crashing(LSTM):
        def _sample(self, draws, inputs_of, state):
            raise RuntimeError("shapes\ndiffer")

    monkeypatch.setattr("speechlvm.models.lstm.LSTM", Crashing)
    bad = call(check_model.main, "--config", tiny_config())
    assert bad.returncode == 1 and "sampling   FAILS: RuntimeError: shapes differ\n" in bad.stdout
    assert "; --debug shows where" in bad.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.__dict__.pop("hop"), "its __init__ does not set hop; see MODELS.md"),
        (lambda model: delattr(model, "head"), "its __init__ does not set head; see MODELS.md"),
        (lambda model: setattr(model, "head", nn.Linear(6, 4)), "its head is a Linear; expected an OutputLayer"),
        (lambda model: model.hidden, "AttributeError: 'Unfinished' object has no attribute 'hidden'; --debug shows"),
    ],
)
def test_a_model_that_is_not_completely_built_is_refused_in_one_line(tiny_config, monkeypatch, change, message):
    class Unfinished(LSTM):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            change(self)

    monkeypatch.setattr("speechlvm.models.lstm.LSTM", Unfinished)
    bad = call(check_model.main, "--config", tiny_config())
    assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (1, "", 1)
    assert bad.stderr.startswith(f"error: lstm: cannot be built: {message}")
