"""Explicit-likelihood generative models of raw speech: training, scoring, sampling and analysis.

Glossary used throughout:

    frame   one waveform sample (for strokes and motion: one vector of the sequence)
    step    one model step of ``s`` consecutive frames (``stack``)
    hop     frames that one element of a series stands for (``s``; ``s_l`` for level l of CW-VAE)
    B T C   batch, frames, channels of the input;  D size of a latent or hidden vector;  L levels;  K components
    nats    every log-probability;  bits only in reports;  bpf = bits per frame (source A, eq. 11)
"""

__version__ = "0.1.0"
