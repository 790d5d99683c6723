"""Recursive least squares filters, and functions whose results are the same on all machines, in numba.

Only + - * / sqrt and powers of two are used, in a fixed order, without fast-math and contraction, so that IEEE 754
determines the results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

_GROWTH, _FORGETTING, _LEVERAGE, _LIMIT = range(4)
_LOG2E = 1.4426950408889634
_LOG2_OF_3_4 = -0.4150374992788438

# Division by 0 is not an error, as checks would prevent vectorisation.
compiled = njit(error_model="numpy", no_cfunc_wrapper=True)
internal = njit(error_model="numpy", no_cfunc_wrapper=True, no_cpython_wrapper=True)  # not to be called from Python


class RLS(NamedTuple):
    """Recursive least squares filters, stored one after another: weights w of regressors h, their covariance P.

    Attributes:
        matrix: (n, n) per filter: P = growth (matrix - scaled scaled'); the difference is taken in the next pass.
        weights: (n,) per filter.
        gain: (n,) per filter: P h / growth for the next frame.
        scaled: (n,) per filter.
        scalars: (filters, 4) growth; forgetting factor; h' P h / growth; bound of the mean diagonal of P, which would
            grow without limit without excitation, as in digital silence.
        places: (filters, 3) order n, a multiple of 4; offset of its vectors; offset of its matrix.
    """

    matrix: np.ndarray
    weights: np.ndarray
    gain: np.ndarray
    scaled: np.ndarray
    scalars: np.ndarray
    places: np.ndarray


def start_filters(filters: Sequence[tuple[int, float, float, float]]) -> RLS:
    """Filters with weights 0, from order, forgetting factor, initial variance and bound of the mean variance."""
    columns = np.array(filters)
    orders = columns[:, 0].astype(np.int64)
    _, forgetting, variance, limit = columns.T
    total, nothing = orders.sum(), np.zeros(len(orders))
    return RLS(
        matrix=np.concatenate([np.eye(order).ravel() for order in orders]),
        weights=np.zeros(total),
        gain=np.zeros(total),
        scaled=np.zeros(total),
        scalars=np.stack([variance, forgetting, nothing, limit], 1),
        places=np.stack([orders, np.cumsum(orders) - orders, np.cumsum(orders**2) - orders**2], 1),
    )


@internal
def output(rls: RLS, index: int, regressors: np.ndarray) -> float:
    """The prediction w h of a filter."""
    return dot(rls.weights, rls.places[index, 1], regressors, rls.places[index, 0])


@internal
def aim(rls: RLS, index: int, regressors: np.ndarray) -> None:
    """Take the difference that the last correction left, and multiply the matrix by the next regressors."""
    order, first, corner = rls.places[index, 0], rls.places[index, 1], rls.places[index, 2]
    gain, scaled = rls.gain[first : first + order], rls.scaled[first : first + order]
    gain[:] = 0.0
    for i in range(0, order, 4):  # four rows at once, for a quarter of the memory traffic of the gain
        begin = corner + i * order
        row0, row1 = rls.matrix[begin:], rls.matrix[begin + order :]
        row2, row3 = rls.matrix[begin + 2 * order :], rls.matrix[begin + 3 * order :]
        s0, s1, s2, s3 = scaled[i], scaled[i + 1], scaled[i + 2], scaled[i + 3]
        h0, h1, h2, h3 = regressors[i], regressors[i + 1], regressors[i + 2], regressors[i + 3]
        for j in range(order):
            m0 = row0[j] - s0 * scaled[j]
            m1 = row1[j] - s1 * scaled[j]
            m2 = row2[j] - s2 * scaled[j]
            m3 = row3[j] - s3 * scaled[j]
            row0[j], row1[j], row2[j], row3[j] = m0, m1, m2, m3
            gain[j] += (m0 * h0 + m1 * h1) + (m2 * h2 + m3 * h3)
    scaled[:] = 0.0
    rls.scalars[index, _LEVERAGE] = dot(rls.gain, first, regressors, order)


@internal
def correct(rls: RLS, index: int, error: float, variance: float) -> None:
    """Update a filter by the error for the regressors of the last `aim`; `variance` is the expected squared error."""
    order, first, corner = rls.places[index, 0], rls.places[index, 1], rls.places[index, 2]
    gain, scaled, weights = rls.gain, rls.scaled, rls.weights
    growth, forgetting = rls.scalars[index, _GROWTH], rls.scalars[index, _FORGETTING]
    leverage = rls.scalars[index, _LEVERAGE]
    if leverage < 0.0:  # rounding has made the matrix indefinite
        for i in range(order):
            gain[first + i] = 0.0
            for j in range(order):
                rls.matrix[corner + i * order + j] = 1.0 if i == j else 0.0
        leverage = 0.0
    factor = growth / (forgetting * variance + growth * leverage)
    root, step = math.sqrt(factor), factor * error
    for i in range(first, first + order):
        weights[i] += gain[i] * step
        scaled[i] = gain[i] * root
    growth /= forgetting
    if growth > 2.0:
        trace = 0.0
        for i in range(order):
            trace += rls.matrix[corner + i * (order + 1)]
        factor = min(growth, rls.scalars[index, _LIMIT] * order / trace)
        root = math.sqrt(factor)
        for i in range(first, first + order):
            scaled[i] *= root
        for i in range(corner, corner + order * order):
            rls.matrix[i] *= factor
        growth = 1.0
    rls.scalars[index, _GROWTH] = growth


@internal
def dot(a: np.ndarray, first: int, b: np.ndarray, count: int) -> float:
    """Sum of a[first + i] b[i] over i < count, a multiple of 4."""
    s0 = s1 = s2 = s3 = 0.0
    for i in range(0, count, 4):
        s0 += a[first + i] * b[i]
        s1 += a[first + i + 1] * b[i + 1]
        s2 += a[first + i + 2] * b[i + 2]
        s3 += a[first + i + 3] * b[i + 3]
    return (s0 + s1) + (s2 + s3)


@internal
def push(values: np.ndarray, value: float) -> None:
    """Insert a value at the front and drop the last one."""
    for i in range(len(values) - 1, 0, -1):
        values[i] = values[i - 1]
    values[0] = value


@internal
def log2(x: float) -> float:
    """Base-2 logarithm, to within 1e-6; those of libraries differ between machines."""
    mantissa, exponent = math.frexp(x)  # mantissa in [1/2, 1)
    s = (mantissa - 0.75) / (mantissa + 0.75)
    q = s * s
    series = 1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0))))
    return exponent + _LOG2_OF_3_4 + 2.0 * _LOG2E * s * series


@internal
def exp2(x: float) -> float:
    """2^x, to a relative error of 1e-6."""
    whole = math.floor(x)
    y = (x - whole) / _LOG2E
    series = 1.0 + y * (
        1.0 + y / 2.0 * (1.0 + y / 3.0 * (1.0 + y / 4.0 * (1.0 + y / 5.0 * (1.0 + y / 6.0 * (1.0 + y / 7.0)))))
    )
    return math.ldexp(series, int(whole))
