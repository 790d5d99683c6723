"""Tiny systems that the tests of all models share, with weights large enough for everything to matter."""

from dataclasses import dataclass

import pytest
import torch

from speechlvm.distributions import build_distribution
from speechlvm.distributions.noise import Noise
from speechlvm.models import build_model
from speechlvm.models.base import Model
from speechlvm.observation import AudioObservation, Observation, Statistics, VectorObservation

STACK = 4
EXACT = {
    "lstm": ("lstm", {"stack": STACK, "hidden": 6, "layers": 2, "mlp_layers": 1}),
    "wavenet": ("wavenet", {"stack": STACK, "channels": 6, "layers_per_block": 2, "blocks": 2}),
}
LATENT = {
    "cwvae_l1": ("cwvae", {"stride": STACK, "levels": 1, "width": 5, "blocks": 1}),
    "cwvae_l2": ("cwvae", {"stride": STACK, "levels": 2, "factor": 2, "width": 5, "blocks": 1}),
    "cwvae_l2_residual": (
        "cwvae",
        {
            "stride": STACK,
            "levels": 2,
            "factor": 2,
            "width": 5,
            "blocks": 0,
            "prior": "context",
            "posterior": "residual",
            "span": "strict",
        },
    ),
    "cwvae_l3_precision": (
        "cwvae",
        {
            "stride": STACK,
            "levels": 3,
            "factor": 2,
            "width": 5,
            "blocks": 1,
            "prior": "context",
            "posterior": "precision",
        },
    ),
    "vrnn": ("vrnn", {"stack": STACK, "latent": 3, "hidden": 6, "state": 5, "mlp_layers": 3}),
    "srnn": ("srnn", {"stack": STACK, "latent": 3, "hidden": 6, "state": 5, "mlp_layers": 3}),
    "srnn_filtering": (
        "srnn",
        {"stack": STACK, "latent": 3, "hidden": 6, "state": 5, "mlp_layers": 3, "posterior": "filtering"},
    ),
    "zforcing": ("zforcing", {"stack": STACK, "latent": 3, "hidden": 6, "state": 5, "embedding": 4}),
    "zforcing_normalised": (
        "zforcing",
        {"stack": STACK, "latent": 3, "hidden": 6, "state": 5, "embedding": 4}
        | {"conditional_layer_norm": True, "backward_likelihood": True, "initialisation": "plain"},
    ),
    "stochastic_wavenet": (
        "stochastic_wavenet",
        {"stack": STACK, "layers": 3, "stochastic_layers": 3, "channels": 6, "latent_total": 7},
    ),
    "stochastic_wavenet_top": (
        "stochastic_wavenet",
        {"stack": STACK, "layers": 3, "stochastic_layers": 2, "channels": 6, "latent_total": 7},
    ),
    "stcn": (
        "stcn",
        {"stack": STACK, "channels": 6, "latents": [4, 3], "dilations": [1, 2], "output_layers": 2, "dense": False},
    ),
    "stcn_dense": (
        "stcn",
        {"stack": STACK, "channels": 6, "latents": [4, 3, 2], "dilations": [1, 2], "output_layers": 2},
    ),
}
SYSTEMS = {**EXACT, **LATENT}


@dataclass(frozen=True)
class System:
    """A model in float64, and what it observes."""

    name: str
    model: Model
    observation: Observation


def build(name, conf, coding="mulaw8", distribution="dmol", distribution_conf=None):
    """A model in float64 with the weights it starts from, and its observation."""
    observation = AudioObservation(coding, Statistics(0.0, 0.1))
    torch.manual_seed(0)
    of_frames = build_distribution(distribution, distribution_conf or {}, observation)
    return build_model(name, conf, 1, of_frames).double(), observation


def tiny_system(key):
    """No weight that starts at zero or small hides anything; the output stays small: no extreme likelihood."""
    model, observation = build(*SYSTEMS[key], distribution_conf={"components": 2})
    return System(key, perturbed(model), observation)


def perturbed(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    model.initialise_output(0.3 * torch.randn(model.distribution.parameter_size, generator=generator))
    return model.eval().requires_grad_(False)


def tiny_pen(key, stack):
    """A system of pen points: three channels, the first binary."""
    name, conf = SYSTEMS[key]
    conf = {**conf, "stride": max(2, stack)} if name == "cwvae" else {**conf, "stack": stack}
    observation = VectorObservation({"pen": "binary", "dx": "real", "dy": "real"}, [0.1, 3.0, -2.0], [0.3, 10.0, 4.0])
    distribution = build_distribution("bernoulli_bivariate", {"components": 2}, observation)
    torch.manual_seed(0)
    return System(key, perturbed(build_model(name, conf, 3, distribution).double()), observation)


@pytest.fixture(scope="session")
def covered_models():
    """Names of the models that `tiny` goes through."""
    return {name for name, _ in SYSTEMS.values()}


@pytest.fixture(scope="session")
def build_system():
    """build_system(name, conf, coding, distribution, distribution_conf) -> model in float64, observation."""
    return build


@pytest.fixture(params=list(SYSTEMS))
def named_system(request):
    """(name, conf) of every system."""
    return SYSTEMS[request.param]


@pytest.fixture(scope="module", params=list(SYSTEMS))
def tiny(request):
    """Every system."""
    return tiny_system(request.param)


FIRST = {name: key for key, (name, _) in reversed(SYSTEMS.items())}  # of each model, its first system


# What is computed on other devices: every system, one of each model frame by frame, starts and inputs of other kinds.
ELSEWHERE = {
    **SYSTEMS,
    **{f"{key}_s1": (SYSTEMS[key][0], {**SYSTEMS[key][1], "stack": 1}) for key in FIRST.values() if key != "cwvae_l1"},
    **{f"{key}_plain": (key, {**SYSTEMS[key][1], "initialisation": "plain"}) for key in ("vrnn", "srnn", "zforcing")},
    "wavenet_experts": (
        "wavenet",
        {"stack": 1, "channels": 6, "layers_per_block": 2, "blocks": 1, "experts": "adaptive"},
    ),
}


@pytest.fixture(params=list(ELSEWHERE))
def named_elsewhere(request):
    """(name, conf) of systems that are computed on other devices than the CPU."""
    return ELSEWHERE[request.param]


@pytest.fixture(
    scope="module", params=[(key, STACK) for key in SYSTEMS] + [(key, 1) for key in FIRST.values()], ids=str
)
def tiny_of_pens(request):
    """Every system, of pen points in stacks, and one of every model, of pen points one by one."""
    return tiny_pen(*request.param)


@pytest.fixture(scope="module", params=list(LATENT))
def tiny_latent(request):
    """Every system with latent variables."""
    return tiny_system(request.param)


@pytest.fixture(scope="session")
def double_noise():
    """double_noise(rows, stream) -> noise in float64, one key per row."""
    return lambda rows, prefix="utterance": Noise([(prefix, row) for row in range(rows)], dtype=torch.float64)
