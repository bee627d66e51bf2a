"""Softmax regression over hashed values: which of K things becomes of a row."""

from typing import NamedTuple

import torch
from torch import Tensor

from learner.batch import Rows

RATE = 0.1  # of Adagrad, unless told
VALUES = 16.0  # hashed values of a row; those of a row that has more move less
START = 0.1  # Adagrad's sums of squares begin here


class Regression(NamedTuple):
    """``table``, ``squares`` [buckets, K] float32: weights of hashed values, and Adagrad's sums of squared gradients.
    ``bias``, ``bias_squares`` [K] float32."""

    table: Tensor
    squares: Tensor
    bias: Tensor
    bias_squares: Tensor


def init(buckets: int, belief: Tensor) -> Regression:
    """Before any row: everywhere the probabilities ``belief`` [K]."""
    zeros = torch.zeros(buckets, len(belief))
    return Regression(zeros, torch.full_like(zeros, START), belief.log().float(), torch.full((len(belief),), START))


def logits(state: Regression, rows: Rows) -> Tensor:
    """The softmax of these is P(k | x): [R, K] float32."""
    return torch.zeros(rows.size, len(state.bias)).index_add(0, rows.row, state.table[rows.ids]) + state.bias


def update(state: Regression, rows: Rows, happened: Tensor, rate: float = RATE) -> Regression:
    """One step of sparse Adagrad on the mean log loss of R rows, 1 at least; ``happened`` [R] int64: which k.

    All values of a row step alike, so a row of n values moves n steps far; beyond VALUES of them each step is shorter.
    """
    wrong = (logits(state, rows).softmax(1) - torch.eye(len(state.bias))[happened]) / len(happened)  # dL/dlogits
    ids, place = torch.unique(rows.ids, return_inverse=True)
    gradient = torch.zeros(len(ids), len(state.bias)).index_add(0, place, wrong[rows.row])
    longest = torch.zeros(len(ids)).scatter_reduce(0, place, rows.ptr.diff()[rows.row].float(), "amax")
    squares = state.squares[ids] + gradient.square()
    state.squares[ids] = squares
    state.table[ids] -= rate * gradient / squares.sqrt() / (longest / VALUES).clamp(min=1)[:, None]
    bias_squares = state.bias_squares + wrong.sum(0).square()
    return state._replace(bias=state.bias - rate * wrong.sum(0) / bias_squares.sqrt(), bias_squares=bias_squares)
