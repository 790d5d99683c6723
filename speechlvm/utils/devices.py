"""Copies to a device, for which the host does not wait."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device; on the CPU it is the tensor itself.

    A copy from pageable memory, or one that is not `non_blocking`, starts when the device has done all earlier work,
    and the host waits for it.
    """
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
