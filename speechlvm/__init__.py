"""Explicit-likelihood generative models of raw speech: training, scoring, sampling and analysis.

Glossary used throughout:

    frame   one waveform sample (for strokes and motion: one vector of the sequence)
    step    one model step of ``s`` consecutive frames (``stack``)
    hop     frames that one element of a series stands for (``s``; ``s_l`` for level l of CW-VAE)
    B T C   batch, frames, channels of the input;  D size of a latent or hidden vector;  L levels;  K components
    nats    every log-probability;  bits only in reports;  bpf = bits per frame (source A, eq. 11)

From here, `load_experiment` (experiment/load.py) and `score` (scoring/library.py) are imported when first used.
"""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {"load_experiment": "speechlvm.experiment.load", "score": "speechlvm.scoring.library"}


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
