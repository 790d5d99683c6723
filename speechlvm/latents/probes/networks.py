"""Networks of probes: small, so that they only find what is easy to decode."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DROPOUT = 0.2
JOINED = 2  # steps of the clock per step of a recogniser, 32 ms: half the work, and CTC leaves its first plateau sooner


class LinearClassifier(nn.Linear):
    """An affine map of each step; weights start at zero, as the problem is convex."""

    def reset_parameters(self) -> None:
        """Set all weights to zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, steps, dimensions) -> (batch, steps, outputs), and the lengths unchanged."""
        return super().forward(features), lengths


class Recogniser(nn.Module):
    """Projection of two steps of the clock, one bidirectional LSTM, affine map.

    Args:
        dimensions: size of the features.
        hidden: size of the projection, and of the LSTM in each direction.
        outputs: number of tokens, including the blank.
    """

    def __init__(self, dimensions: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.Linear(JOINED * dimensions, hidden), nn.ReLU(), nn.Dropout(DROPOUT))
        self.rightward = nn.LSTM(hidden, hidden, batch_first=True)
        self.leftward = nn.LSTM(hidden, hidden, batch_first=True)
        self.output = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(2 * hidden, outputs))
        for direction in (self.rightward, self.leftward):  # forget gates start open
            nn.init.ones_(direction.bias_ih_l0.data[hidden : 2 * hidden])

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the network; outputs of an utterance do not depend on others in the batch.

        Each direction is a separate recurrence that starts at step 0, the second over reversed utterances, so that
        padding is never seen: packed sequences have the same effect, but are several times slower on a CPU.

        Args:
            features: (batch, steps, dimensions), zero beyond the end of an utterance.
            lengths: (batch,) steps of each utterance.

        Returns:
            (batch, ceil(steps / 2), outputs), undefined beyond the end of an utterance; (batch,), their lengths.
        """
        padded = nn.functional.pad(features, (0, 0, 0, -features.shape[1] % JOINED))
        projected = self.projection(padded.reshape(len(padded), -1, JOINED * padded.shape[2]))
        lengths = recogniser_steps(lengths)
        steps = torch.arange(projected.shape[1], device=features.device)
        mirrored = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
        rightward = self.rightward(projected)[0]
        leftward = _reordered(self.leftward(_reordered(projected, mirrored))[0], mirrored)
        return self.output(torch.cat([rightward, leftward], dim=-1)), lengths


def recogniser_steps(steps):
    """Steps of a recogniser for a number of steps of the clock; half of the last one may be padding."""
    return -(-steps // JOINED)


def _reordered(values: Tensor, order: Tensor) -> Tensor:
    """Reorder the steps of (batch, steps, D) by indices (batch, steps)."""
    return values.gather(1, order[..., None].expand_as(values))
