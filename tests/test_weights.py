"""Importance weights against the reference formulas, by enumeration, and their bounds."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learner import weights
from learner.losses import log_loss

shares = st.floats(0, 1)


def one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


@given(shares, shares, shares, st.sampled_from([0.0, 1.0]))
def test_weights_are_finite_and_bounded(f: float, p_dp: float, p_rn: float, label: float) -> None:
    """Whatever the estimates, also 0 and 1: joint weights are in [0, 1], the others in [0, 2]."""
    assert 0 <= float(weights.joint_ratio(one(p_rn), one(label))) <= 1
    assert 0 <= float(weights.es_dfm(one(p_dp), one(p_rn), one(label))) <= 2
    assert 0 <= float(weights.fnw(one(f), one(label))) <= 2


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_the_formulas(f: float, p_dp: float, p_rn: float) -> None:
    """Label 1 and label 0 weigh what the papers say."""
    told = [
        (weights.joint_ratio(one(p_rn), one(1)), 1.0),
        (weights.joint_ratio(one(p_rn), one(0)), p_rn),
        (weights.es_dfm(one(p_dp), one(p_rn), one(1)), 1 + p_dp),
        (weights.es_dfm(one(p_dp), one(p_rn), one(0)), (1 + p_dp) * p_rn),
        (weights.fnw(one(f), one(1)), 1 + f),
        (weights.fnw(one(f), one(0)), (1 - f) * (1 + f)),
    ]
    for found, expected in told:
        assert float(found) == pytest.approx(expected)


def test_a_real_negative_is_bayes_rule() -> None:
    """p_rn equals the share of real negatives among rows not converted by e with that signal, counted out."""
    for p, late, cart_late, cart_never in itertools.product((0.05, 0.4), (0.2, 0.9), (0.1, 0.8), (0.05, 0.3)):
        fake, real = p * late * cart_late, (1 - p) * cart_never
        log_r = torch.tensor([late * cart_late / cart_never], dtype=torch.float64).log()
        assert float(weights.real_negative(one(p), log_r)) == pytest.approx(real / (real + fake))


def test_no_gradient_flows_through_a_weight() -> None:
    """A weight made of the model's own probability is a constant to the gradient."""
    logit = torch.zeros(1, requires_grad=True)
    f = torch.sigmoid(logit)
    for weight in (
        weights.fnw(f, torch.zeros(1)),
        weights.joint_ratio(f, torch.zeros(1)),
        weights.es_dfm(f, f, torch.zeros(1)),
    ):
        assert not weight.requires_grad


@given(shares)
def test_clipped_says_what_the_clip_changes(p: float) -> None:
    """An estimate counts as clipped exactly where the clip moves it."""
    assert bool(weights.clipped(one(p))) == (float(weights.clip(one(p))) != p)


@given(st.floats(-30, 30), st.sampled_from([0.0, 1.0]))
def test_log_loss_is_the_cross_entropy(logit: float, label: float) -> None:
    """-log f for label 1, -log(1 - f) for label 0, in float64."""
    expected = torch.nn.functional.binary_cross_entropy_with_logits(one(logit), one(label))
    assert float(log_loss(one(logit), one(label))) == pytest.approx(float(expected), abs=1e-12)
