"""States of copied rows: what goes on from one is what its whole path of latents says."""

import pytest
import torch

from speechlvm.data.dumps.dataset import Batch, Segment
from speechlvm.distributions.noise import Noise
from speechlvm.models.bound import select_rows, slice_features
from speechlvm.scoring.objective import row_sums
from speechlvm.scoring.score import score_batch

ANCESTORS = [2, 0, 0]


def pcm_of(rows, frames):
    return torch.randint(-30000, 30000, (rows, frames), generator=torch.Generator().manual_seed(3)).to(torch.int16)


def test_a_selected_state_knows_all_of_its_path(tiny_latent, double_noise):
    """Three particles of one utterance; after two hops the first goes on from the third, the others from the first."""
    model, observation = tiny_latent.model, tiny_latent.observation
    cut, frames = 2 * model.hop, 4 * model.hop + 1
    pcm, lengths = pcm_of(1, frames).expand(3, -1), torch.full((3,), frames)
    inputs = observation.inputs(pcm, lengths).double()
    features = model.encode(inputs, lengths)
    before, after = slice_features(features, 0, cut), slice_features(features, cut, frames)
    first = model.infer(inputs[:, :cut], lengths, features=before, noise=double_noise(3))
    state = select_rows(first.state, torch.tensor(ANCESTORS))
    second = model.infer(inputs[:, cut:], lengths - cut, features=after, noise=double_noise(3, "on"), state=state)
    path = {level: torch.cat([z[ANCESTORS], second.latents[level]], 1) for level, z in first.latents.items()}
    whole = model.conditionals(inputs, lengths, path, features=features)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(second.conditionals.parameters, whole.parameters[:, cut:], **close)
    for kind in ("prior", "posterior"):
        for level, gaussian in getattr(second.conditionals, kind).items():
            expected = getattr(whole, kind)[level].mean[:, cut // model.latent_hops[level] :]
            torch.testing.assert_close(gaussian.mean, expected, **close)


def test_fivo_depends_on_neither_chunks_nor_batches(tiny_latent):
    model, observation = tiny_latent.model, tiny_latent.observation
    lengths = torch.tensor([20 * model.hop + 3, 7 * model.hop])
    pcm = pcm_of(2, int(lengths.max()))
    pcm[1, lengths[1] :] = 0
    segments = tuple(Segment(f"u{row}", 0, int(length)) for row, length in enumerate(lengths))

    def nats(rows, chunk, samples=4, resample=True):
        batch = Batch(tuple(segments[row] for row in rows), pcm[rows][:, : int(lengths[rows].max())], lengths[rows])
        return {s.utterance: s.nats for s in score_batch(model, observation, batch, chunk, 0, samples, resample)}

    together = nats([0, 1], 10**6)
    assert nats([1, 0], 1) == pytest.approx(together, rel=1e-9)
    assert nats([1], 3 * model.hop) == pytest.approx({"u1": together["u1"]}, rel=1e-9)
    assert abs(nats([0, 1], 10**6, resample=False)["u0"] - together["u0"]) > 1e-3  # some were resampled
    noise = Noise([(0, "score", segments[0].utterance, 0)], dtype=torch.float64)
    bound = model.score(
        observation.inputs(pcm[:1], lengths[:1]).double(), observation.target(pcm[:1]), lengths[:1], noise
    )
    sampled = row_sums(bound.log_likelihood) - sum(map(row_sums, bound.log_ratio.values()))
    assert nats([0], 10**6, samples=1)["u0"] == pytest.approx(float(sampled), rel=1e-9)
