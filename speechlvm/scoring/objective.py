"""The terms of a bound: their totals per row, and the weighted sum that training minimises:

mean over frames of -log p(x|z) + w * max(KL, free nats) + auxiliary losses

The maximum is taken per step, or per dimension of a step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from speechlvm.models.bound import Bound, Series


def row_sums(series: Series) -> Tensor:
    """Sums (B,) float64 over the real elements of each row."""
    values = series.values.double()
    mask = series.mask if values.dim() == 2 else series.mask.unsqueeze(-1)
    return (values * mask).flatten(1).sum(1)


@torch.no_grad()
def row_terms(bound: Bound) -> dict[str, Tensor]:
    """Totals of each row in nats, float64 (B,): "log_likelihood", "kl_<level>", "log_ratio_<level>"."""
    terms = {"log_likelihood": row_sums(bound.log_likelihood)}
    terms.update({f"kl_{level}": row_sums(series) for level, series in bound.kl.items()})
    terms.update({f"log_ratio_{level}": row_sums(series) for level, series in bound.log_ratio.items()})
    return terms


def total_nats(terms: Mapping[str, Tensor]) -> Tensor:
    """The one-sample bound (B,) from its terms."""
    return terms["log_likelihood"] - sum(value for name, value in terms.items() if name.startswith("kl_"))


def objective(
    bound: Bound,
    frames: int,
    kl_weight: float = 1.0,
    free_nats: float = 0.0,
    auxiliary_weights: Mapping[str, float] = {},
    free_per_dimension: bool = False,
) -> Tensor:
    """The training objective in nats per frame.

    Args:
        bound: bound of a batch.
        frames: real frames of the whole optimiser step (more than those of the batch with accumulation).
        kl_weight: weight of all KL terms.
        free_nats: nats per latent step and level that are not penalised: max(KL of the step, free_nats).
        auxiliary_weights: weight of each auxiliary loss; others are not used.
        free_per_dimension: each of the D dimensions of a step has `free_nats` / D, times the hop of its level over that
            of the fastest level.
    """
    loss = -_masked_sum(bound.log_likelihood)
    fastest = min((series.hop for series in bound.kl.values()), default=1)
    for series in bound.kl.values():
        values = series.values
        if free_nats > 0 and free_per_dimension:
            values = values.clamp(min=free_nats * series.hop / fastest / values.shape[-1])
        values = values.sum(-1)
        if free_nats > 0 and not free_per_dimension:
            values = values.clamp(min=free_nats)
        loss = loss + kl_weight * _masked_sum(Series(values, series.mask, series.hop))
    for name, weight in auxiliary_weights.items():
        loss = loss + weight * _masked_sum(bound.auxiliary[name])
    return loss / frames


def _masked_sum(series: Series) -> Tensor:
    return torch.where(series.mask, series.values, 0.0).sum()
