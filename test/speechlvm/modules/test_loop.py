"""Loops with pretended graphs: what they can do, and what the pretended ones would show if a step could not."""

import pytest
import torch

from speechlvm.modules import loop


def totals(step, memory, given):
    """The outputs of a loop that is run in three parts."""
    of_steps = loop.Loop(step, memory, len(given))
    with torch.no_grad():
        return torch.cat([of_steps.run({"x": x})["y"] for x in given.split(40)]), of_steps.memory


def test_memory_may_change_places(graphs_on):
    def step(memory, given):
        return {"y": memory["a"] + memory["b"]}, {"a": memory["b"][:1] + given["x"], "b": memory["a"]}

    def run():
        return totals(step, {"a": torch.zeros(2), "b": torch.ones(2)}, torch.arange(200.0).view(-1, 2))

    (plain, memory), _ = run(), graphs_on(("cpu",))
    replayed, at_the_end = run()
    assert torch.equal(replayed, plain)
    for name, value in memory.items():
        assert torch.equal(at_the_end[name], value)


def test_a_number_of_the_host_is_frozen(graphs_on):
    numbers = []

    def step(memory, given):
        numbers.append(None)
        return {"y": given["x"] + len(numbers)}, memory

    (plain, _), _ = totals(step, {}, torch.zeros(100, 2)), graphs_on(("cpu",))
    numbers.clear()
    assert not torch.equal(totals(step, {}, torch.zeros(100, 2))[0], plain)


def test_what_cannot_be_captured_is_called(graphs_on):
    def step(memory, given):
        y = memory["y"] + given["x"].sum().item()
        return {"y": y}, {"y": y}

    (plain, _), _ = totals(step, {"y": torch.zeros(2)}, torch.ones(100, 2)), graphs_on(("cpu",))
    with pytest.warns(UserWarning, match="no CUDA graph"):
        assert torch.equal(totals(step, {"y": torch.zeros(2)}, torch.ones(100, 2))[0], plain)
