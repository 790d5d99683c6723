"""Devices of programs."""

import torch

from speechlvm.experiment.load import training_device


def test_on_a_gpu_float32_is_not_rounded(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert training_device(0) == torch.device("cpu") and torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert training_device(2, 1) == torch.device("cuda", 1) and not torch.backends.cudnn.allow_tf32
