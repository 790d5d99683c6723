"""Initialisation of a hierarchy's coder as codes that are known to work.

A random chain of linear layers is a poor code: the decoder would learn to ignore the latents before they carry any
information (their KL stays near zero). The lowest latents start as cosine coefficients of the frames of their step.
The latents of the second level, which cover several of these steps, start as the loudness of each in bands, and the
standard deviations of the prior below follow it: given the second level, that prior is a diagonal Gaussian, and over
all a mixture of Gaussians of many widths, as speech needs it. A second level that only says where the latents below
will be costs as much as it saves.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from speechlvm.modules.conv_coder import CausalDecoder, LadderEncoder
from speechlvm.modules.initialise import INITIAL_RAW_STD, cosine_transform

_STD_OF_LOUDNESS = 1.25
"""Standard deviation of a Gaussian variable of mean size 1."""
_ABOVE_BANDS = 0.5
"""The same for coefficients above the bands, which are smaller than those of the last band."""
_RAW_STD_OF_SILENCE = -0.5


@torch.no_grad()
def start_with_codes(levels: nn.ModuleList, encoder: LadderEncoder, decoders: nn.ModuleList, channels: int) -> None:
    """Initialise posteriors, priors and coders of the levels of `cwvae.CWVAE`, lowest first.

    The second level starts as loudness only if the prior below has a path from the context.
    """
    scale, used = levels[0].prior_direct, [start_as_cosine_transform(encoder, decoders[0], channels)]
    if scale is not None:
        used.append(start_as_loudness(encoder.levels[1], decoders[1], scale, used[0]))
        if used[1]:
            levels[0].prior_output.bias[scale.in_features :][: used[0]] = _RAW_STD_OF_SILENCE
    for level, decoder, features in zip(levels, decoders, used, strict=False):
        width = decoder.width
        level.posterior_direct.weight[:width].copy_(torch.eye(width))
        level.posterior_direct.bias[width : width + features] = INITIAL_RAW_STD
        decoder.enter.weight[:, :width].copy_(torch.eye(width))
        decoder.enter.bias.zero_()


@torch.no_grad()
def start_as_cosine_transform(encoder: LadderEncoder, decoder: CausalDecoder, channels: int) -> int:
    """Initialise the skip connections of the lowest level as the cosine transform of the frames of a step.

    Feature k is then coefficient k of each channel in turn, low frequencies first, as many as fit; the skip connections
    of the decoder are the inverse transform.

    Args:
        encoder, decoder: coder of the lowest level.
        channels: C, channels of the waveform.

    Returns:
        The number of features in use.
    """
    width = decoder.width
    descents = [block for block in decoder.blocks if isinstance(block.skip, nn.Linear)][::-1]
    frames, basis = 1, torch.eye(channels, dtype=torch.float64)
    for block in encoder.levels[0]:
        if block.stride == 1:
            continue
        frames *= block.stride
        transform = cosine_transform(frames, width, channels)
        target = F.pad(transform, (0, 0, 0, width - len(transform)))
        # the inverse (transpose) of the previous basis, block by block, then the new basis
        skip = target @ torch.block_diag(*[basis.t()] * block.stride)
        block.skip.weight.copy_(skip)
        if frames > block.stride:
            descents.pop(0).skip.weight.copy_(skip.t())
        basis = target
    return min(width, frames * channels)


@torch.no_grad()
def start_as_loudness(stage: nn.ModuleList, decoder: CausalDecoder, scale: nn.Linear, features: int) -> int:
    """Initialise the coder of a level as mean sizes of the features below, by step and in bands of features.

    Args:
        stage: encoder of the level, whose first block goes down to its rate.
        decoder: of the level, whose last block goes back to the rate below.
        scale: from the context to the raw prior below, in which standard deviations follow the means.
        features: number of features below in use.

    Returns:
        The number of features in use, half of the width at most; 0, and nothing is changed, if that does not suffice
        for one band, or if the level has several strides.
    """
    down, up, width = stage[0], decoder.blocks[-1], decoder.width
    steps = down.stride
    bands = min(width // 2 // steps, features)
    if not bands or any(block.stride > 1 for block in stage[1:]):
        return 0
    each = min(down.up.out_features // 2 // (steps * bands), features // bands)
    for weight in (down.skip.weight, down.up.weight, down.up.bias, down.down.weight, up.skip.weight):
        weight.zero_()
    share = 1.0 / (1.0 - down.activation.weight) / each  # PReLU(x) + PReLU(-x) = (1 - slope) |x|
    for step in range(steps):
        for feature in range(bands * each):
            band, unit = feature // each, 2 * (step * bands * each + feature)
            down.up.weight[unit : unit + 2, step * width + feature] = torch.tensor([1.0, -1.0])
            down.down.weight[step * bands + band, unit : unit + 2] = share
            up.skip.weight[step * width + band, step * bands + band] = 1.0
    for feature in range(features):
        of_loudness = _STD_OF_LOUDNESS if feature < bands * each else _ABOVE_BANDS
        scale.weight[width + feature, min(feature // each, bands - 1)] = of_loudness
    return bands * steps
