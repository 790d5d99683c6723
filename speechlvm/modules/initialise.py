"""Initialisation of latents: an informative code that the decoder can read, close to the prior for a low KL."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from speechlvm.modules.mlp import MLP

Initialisation = Literal["transform", "plain"]
"""Initialisation of a system with latents. "transform": the lowest latents start as noisy cosine coefficients of the
frames of their step, and the decoder as a network that reads them; "plain": random weights, as in the papers."""

INITIAL_RAW_STD = -2.0
"""Raw std of posteriors of latents that start as coefficients: std 0.21; coefficients of mu-law speech have 0.57."""


def cosine_transform(frames: int, coefficients: int, channels: int = 1) -> Tensor:
    """The first rows of the orthonormal DCT-II, channels interleaved: (<= coefficients, frames * channels) float64."""
    rows = torch.arange(min(coefficients, frames), dtype=torch.float64)[:, None]
    places = torch.arange(frames, dtype=torch.float64) + 0.5
    basis = torch.cos(math.pi / frames * rows * places) * math.sqrt(2.0 / frames)
    basis[:1] /= math.sqrt(2.0)
    return torch.kron(basis, torch.eye(channels, dtype=torch.float64))[:coefficients]


@torch.no_grad()
def start_carrying(mlp: MLP, rows: Tensor, first_input: int = 0) -> None:
    """Initialise some hidden units of an MLP as linear functions of its input; the others stay random.

    A random deep MLP is a poor code: the decoder would learn to ignore the latents before they carry any information.
    Here units k and k + m of every layer are the positive and the negative part of one number, so their difference is
    that number (approximately, as the activation is leaky).

    Args:
        mlp: network to change in place.
        rows: (R, K), weights of the first R units of the first layer; the other layers pass these units on.
        first_input: index of the first of the K inputs that they read.
    """
    for i, layer in enumerate(mlp.hidden):
        weights = torch.eye(len(rows)) if i else rows
        first = 0 if i else first_input
        layer.weight[: len(rows)].zero_()
        layer.weight[: len(rows), first : first + weights.shape[1]] = weights.to(layer.weight)
        layer.bias[: len(rows)].zero_()


def both_signs(rows: Tensor) -> Tensor:
    """(m, K) -> (2 m, K): rows for `start_carrying` that give positive and negative parts."""
    return torch.cat([rows, -rows])


@torch.no_grad()
def start_reading(output: nn.Linear, numbers: int) -> None:
    """Initialise the output layer of a posterior such that its first means are the numbers that the MLP carries.

    Args:
        output: output layer, with means and raw standard deviations.
        numbers: m, how many numbers the MLP carries.
    """
    size = output.out_features // 2
    output.weight[:numbers].zero_()
    output.weight[:numbers, : 2 * numbers] = both_signs(torch.eye(numbers)).t().to(output.weight)
    output.bias[size : size + numbers] = INITIAL_RAW_STD


def start_as_standard_normal(*networks: MLP) -> None:
    """Initialise networks that output latent Gaussians close to N(0, 1), so that the KL starts small."""
    with torch.no_grad():
        for network in networks:
            network.output.weight.mul_(0.1)
            network.output.bias.zero_()
