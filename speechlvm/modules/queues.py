"""Queues of the inputs of dilated layers, for going through them step by step.

A layer with dilation d needs its input of step n - d. On the host that is the first of d inputs in a queue. A CUDA
graph would read it from the same place for ever: there, it is in slot n % d of a ring, where the input of step n then
takes its place, and n is counted on the device. The rings of all layers are one tensor, which a step reads and writes
once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from speechlvm.modules.loop import has_graphs
from speechlvm.utils.devices import to_device


class Queues:
    """Queues on the host.

    Args:
        histories: of each layer, the inputs (B, d, C) of the d steps before.
    """

    def __init__(self, histories: Sequence[Tensor]) -> None:
        self._queues = [deque(history.unbind(1)) for history in histories]

    def exchange(self, layer: int, x: Tensor) -> Tensor:
        """The input (B, C) of a layer d steps ago for that of this step; to be called for every layer, in order."""
        self._queues[layer].append(x)
        return self._queues[layer].popleft()

    def histories(self) -> list[Tensor]:
        """Histories after the last step."""
        return [torch.stack(list(queue), 1) for queue in self._queues]


class DeviceQueues(Queues):
    """Queues for steps in CUDA graphs; all layers have C channels."""

    def __init__(self, histories: Sequence[Tensor]) -> None:
        self._rings = torch.cat([history.transpose(0, 1) for history in histories])
        self._lengths = [history.shape[1] for history in histories]
        self._dilations = to_device(torch.tensor(self._lengths), self._rings.device)
        self._first = self._dilations.cumsum(0) - self._dilations
        self._step = torch.zeros(1, dtype=torch.int64, device=self._rings.device)

    def exchange(self, layer: int, x: Tensor) -> Tensor:
        """See `Queues.exchange`."""
        if layer == 0:
            self._before, self._now = self.pasts(), []
        self._now.append(x)
        if len(self._now) == len(self._lengths):
            self.push(self._now)
        return self._before[layer]

    def pasts(self) -> Tensor:
        """Of all layers, their inputs d steps ago: (layers, B, C)."""
        return self._rings.index_select(0, self._slots())

    def push(self, inputs: Sequence[Tensor]) -> None:
        """Go on by a step, of which these are the inputs (B, C) of all layers."""
        self._rings.index_copy_(0, self._slots(), torch.stack(list(inputs)))
        self._step.add_(1)

    def histories(self) -> list[Tensor]:
        """See `Queues.histories`."""
        return [
            ring.index_select(0, (self._step + torch.arange(len(ring), device=ring.device)) % len(ring)).transpose(0, 1)
            for ring in self._rings.split(self._lengths)
        ]

    def _slots(self) -> Tensor:
        return self._first + self._step % self._dilations


def queues_of(histories: Sequence[Tensor]) -> Queues:
    """Queues that suit the device of the histories."""
    return (DeviceQueues if has_graphs(histories[0].device) else Queues)(histories)
