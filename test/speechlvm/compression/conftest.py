"""Tiny trained models to compress with."""

import pytest

from speechlvm.bin import train

SYSTEMS = {
    "lstm": ("lstm", "mulaw", "dmol", "{stack: 16, hidden: 12, layers: 1}"),
    "wavenet": ("wavenet", "linear", "dmol", "{stack: 1, channels: 8, layers_per_block: 3, blocks: 1}"),
    "experts": (
        "wavenet",
        "linear",
        "dmol",
        "{stack: 1, channels: 8, layers_per_block: 3, blocks: 1, experts: adaptive}",
    ),
    "vrnn": ("vrnn", "mulaw", "dmol", "{stack: 16, latent: 4, hidden: 16, state: 8, mlp_layers: 3}"),
    "srnn": ("srnn", "mulaw-pcm", "dmol", "{stack: 16, latent: 4, hidden: 16, state: 8, mlp_layers: 3}"),
    "srnn_filtering": (
        "srnn",
        "linear",
        "dmol",
        "{stack: 16, latent: 4, hidden: 16, state: 8, mlp_layers: 3, posterior: filtering}",
    ),
    "zforcing": ("zforcing", "mulaw", "dmol", "{stack: 16, latent: 4, hidden: 16, state: 8, embedding: 8}"),
    "cwvae_l1": ("cwvae", "mulaw", "dmol", "{stride: 16, levels: 1, width: 8, blocks: 1}"),
    "cwvae_l3": ("cwvae", "mulaw", "dmol", "{stride: 16, levels: 3, factor: 2, width: 8, blocks: 1}"),
    "stochastic_wavenet": (
        "stochastic_wavenet",
        "mulaw",
        "dmol",
        "{stack: 16, layers: 3, stochastic_layers: 2, channels: 8, latent_total: 7}",
    ),
    "stcn": (
        "stcn",
        "mulaw",
        "dmol",
        "{stack: 16, channels: 16, latents: [4, 3, 2], dilations: [1, 2], output_layers: 2}",
    ),
}
CONFIG = """
model: {}
coding: {}
distribution: {}
model_conf: {}
data: {{batch_frames: 4096, segment_frames: 1024}}
training: {{learning_rate: {{peak: 0.005, schedule: cosine, warmup_steps: 3}}, gradient_clip: 1.0}}
validation: {{every_steps: 12}}
limits: {{steps: 12}}
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory, make_dump_in):
    """trained(system) -> its experiment, trained once."""
    root, made = tmp_path_factory.mktemp("experiments"), {}
    sets = make_dump_in(root / "train", [3000, 2500, 2000]), make_dump_in(root / "valid", [1200], seed=50)

    def train_once(system):
        if system not in made:
            config, out = root / f"{system}.yaml", root / "exp" / system / "seed1"
            config.write_text(CONFIG.format(*SYSTEMS[system]))
            words = ["--config", config, "--train", sets[0], "--valid", sets[1], "--out", out]
            assert train.main([str(word) for word in words]) == 0
            made[system] = out
        return made[system]

    return train_once


@pytest.fixture(scope="session")
def systems():
    """Name -> model, coding, distribution and settings of the model."""
    return SYSTEMS
