"""The networks of probes: small, so that they find only what is easy to decode."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DROPOUT = 0.2
JOINED = 2  # steps of the clock to one of a recogniser, 32 ms: half the work, and CTC leaves its first plateau sooner


class LinearClassifier(nn.Linear):
    """An affine map of each step; its weights start at zero, since the problem is convex."""

    def reset_parameters(self) -> None:
        """All weights zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, steps, dimensions) -> (batch, steps, outputs), and the lengths as they are."""
        return super().forward(features), lengths


class Recogniser(nn.Module):
    """Projection of two steps of the clock, one bidirectional LSTM, affine map.

    Args:
        dimensions: of the features.
        hidden: units of the projection, and of the LSTM in each direction.
        outputs: tokens and the blank.
    """

    def __init__(self, dimensions: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.Linear(JOINED * dimensions, hidden), nn.ReLU(), nn.Dropout(DROPOUT))
        self.rightward = nn.LSTM(hidden, hidden, batch_first=True)
        self.leftward = nn.LSTM(hidden, hidden, batch_first=True)
        self.output = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(2 * hidden, outputs))
        for direction in (self.rightward, self.leftward):  # gates begin by remembering
            nn.init.ones_(direction.bias_ih_l0.data[hidden : 2 * hidden])

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of an utterance do not depend on the others of its batch.

        Each direction is a separate recurrence that starts at step 0, the second over reversed utterances, so that
        padding is never seen: packed sequences would have the same effect, but are several times slower on a CPU.

        Args:
            features: (batch, steps, dimensions), 0 behind an utterance's end.
            lengths: (batch,) steps of each utterance.

        Returns:
            (batch, ceil(steps / 2), outputs), which mean nothing behind an utterance's end; (batch,) lengths of these.
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
    """Steps of a recogniser for this number of steps of the clock; the last may be half padding."""
    return -(-steps // JOINED)


def _reordered(values: Tensor, order: Tensor) -> Tensor:
    """Steps of (batch, steps, D) in the order of (batch, steps)."""
    return values.gather(1, order[..., None].expand_as(values))
