"""What each method minimises: loss, importance weight and curvature per row, from the heads and the estimates.

Every formula stands in docs/methods.md. z = P(y = 1 | x, s, not converted by e) = 1 - p_rn.
"""

import torch
from torch import Tensor

from learner import weights
from learner.batch import Batch, Look
from learner.contract import Outputs, Weighed
from learner.losses import delay_information, exponential_delay, log_left, log_loss, mixture, two_sided
from learner.model import HALF


def _weighted(outputs: Outputs, batch: Batch, weight: Tensor, estimates: Tensor) -> Weighed:
    return Weighed(weight * log_loss(outputs.logit, batch.label), weight, estimates, weight[:, None])


def unweighted(outputs: Outputs, batch: Batch) -> Weighed:
    """Log loss of the label as it is known."""
    return _weighted(outputs, batch, torch.ones_like(batch.label), outputs.f)


def _with_negative(told: Weighed, outputs: Outputs, batch: Batch, weight: Tensor) -> Weighed:
    """What the schedule `now` has learned of an impression before its conversion: a label 0 of this ``weight`` [B]. Where
    the conversion is known at the impression there is no such row, and it is part of that of label 1."""
    at_once = torch.where((batch.look == Look.FIRST) & (batch.label > 0), weight, 0.0)
    negative = log_loss(outputs.logit, torch.zeros_like(batch.label))
    return told._replace(loss=told.loss + at_once * negative, curvature=told.curvature + at_once[:, None])


def twice(outputs: Outputs, batch: Batch) -> Weighed:
    """Log loss of label 0 and, once there is a conversion, of label 1."""
    return _with_negative(unweighted(outputs, batch), outputs, batch, torch.ones_like(batch.label))


def pu(outputs: Outputs, batch: Batch) -> Weighed:
    """Label 1: l1 - l0, which takes back the l0 that was learned before and is linear in the logit. Label 0: l0."""
    one = torch.ones_like(batch.label)
    loss = two_sided(outputs.logit, batch.label, one - 2 * batch.label)
    return _with_negative(Weighed(loss, one, outputs.f, (one - batch.label)[:, None]), outputs, batch, one)


def fnw(outputs: Outputs, batch: Batch) -> Weighed:
    """Fake negative weighted."""
    told = _weighted(outputs, batch, weights.fnw(outputs.f, batch.label), outputs.f)
    return _with_negative(told, outputs, batch, weights.fnw(outputs.f, torch.zeros_like(batch.label)))


def es_dfm(outputs: Outputs, batch: Batch) -> Weighed:
    """The conditional ratio."""
    estimates = torch.stack([outputs.p_dp, outputs.p_rn], 1)
    return _weighted(outputs, batch, weights.es_dfm(outputs.p_dp, outputs.p_rn, batch.label), estimates)


def joint_ratio(outputs: Outputs, batch: Batch) -> Weighed:
    """The joint ratio, with the current model as prior."""
    p_rn = weights.real_negative(outputs.f, outputs.log_r)
    return _weighted(outputs, batch, weights.joint_ratio(p_rn, batch.label), p_rn)


def fsiw(outputs: Outputs, batch: Batch) -> Weighed:
    """Feedback shift importance weights."""
    estimates = torch.stack([outputs.p_early, outputs.p_rn], 1)
    return _weighted(outputs, batch, weights.fsiw(outputs.p_early, outputs.p_rn, batch.label), estimates)


def defer(outputs: Outputs, batch: Batch) -> Weighed:
    """Weights for a log in which every impression has two rows."""
    return _weighted(outputs, batch, weights.defer(outputs.f, outputs.p_dp, batch.label), outputs.p_dp)


def defuse(outputs: Outputs, batch: Batch) -> Weighed:
    """Immediate positive (1 + p_dp) l1; delayed positive l1; observed negative z p_dp l1 + (1 - z)(1 + p_dp) l0."""
    p_dp, p_rn = weights.clip(outputs.p_dp), weights.clip(outputs.p_rn)
    positive, late = batch.label > 0, batch.look == Look.CONVERSION
    for_one = torch.where(positive, torch.where(late, 1.0, 1 + p_dp), (1 - p_rn) * p_dp).detach()
    for_zero = torch.where(positive, 0.0, p_rn * (1 + p_dp)).detach()
    weight = torch.where(positive, for_one, for_zero)
    loss = two_sided(outputs.logit, for_one, for_zero)
    return Weighed(loss, weight, torch.stack([outputs.p_dp, outputs.p_rn], 1), (for_one + for_zero)[:, None])


def bi_defuse(outputs: Outputs, batch: Batch) -> Weighed:
    """In-window head: the label of the first look. Out-window head: immediate positive l0, observed negative (1 - z) l0,
    delayed positive l1."""
    first = (batch.look == Look.FIRST).to(batch.label.dtype)
    outside = torch.where(batch.label > 0, 1.0, weights.clip(outputs.p_rn)).detach()
    loss = first * log_loss(outputs.logit, batch.label) + outside * log_loss(outputs.other, 1 - first)
    return Weighed(loss, outside, outputs.p_rn, torch.stack([first, outside], 1))


def ulc(outputs: Outputs, batch: Batch) -> Weighed:
    """Label 1: l1. Observed negative: z l1 + (1 - z) l0."""
    p_rn = weights.clip(outputs.p_rn)
    for_zero = torch.where(batch.label > 0, 0.0, p_rn).detach()
    weight = torch.where(batch.label > 0, 1.0, for_zero)
    one = torch.ones_like(weight)
    return Weighed(two_sided(outputs.logit, one - for_zero, for_zero), weight, outputs.p_rn, one[:, None])


def dfm(outputs: Outputs, batch: Batch) -> Weighed:
    """Likelihood of what is known at this look, less that of what was known at the one before, both as the model is now.

    Over an impression's looks the sum is the likelihood of its end. Curvature: that of f is counted whole at the first look
    (its information there is F(e) of that) and not at later ones, whose differences may bend either way; log lam has that
    of a conversion's delay, 1 - lam^2 exp(-lam) / (1 - exp(-lam))^2.
    """
    age, before, delay = (
        (time / outputs.window).clamp(0, 1).to(batch.label.dtype) for time in (batch.age, batch.age_before, batch.delay)
    )
    first, other = (batch.look == Look.FIRST).to(batch.label.dtype), outputs.other.detach()
    known = exponential_delay(outputs.logit, outputs.other, batch.label, age, delay)
    earlier = exponential_delay(outputs.logit, outputs.other, batch.before, before, delay)
    p_rn = weights.real_negative(outputs.f, log_left(other, age))
    weight = torch.where((first > 0) & (batch.label == 0), p_rn, 1.0)
    bend = batch.label * delay_information(other) / (torch.sigmoid(other) * torch.sigmoid(-other))
    return Weighed(known - (1 - first) * earlier, weight, outputs.f, torch.stack([first, bend], 1))


def gdfm(outputs: Outputs, batch: Batch) -> Weighed:
    """Likelihood of the state at a reveal time, times what the reveal time is worth."""
    p_rn = weights.real_negative(outputs.f, outputs.log_r)
    unknown = mixture(outputs.logit, outputs.log_r)
    loss = torch.where(batch.label > 0, log_loss(outputs.logit, batch.label), unknown)
    weight = torch.where(batch.label > 0, 1.0, p_rn)
    return Weighed(outputs.reveal * loss, weight, outputs.f, outputs.reveal[:, None])


LEAST = 0.02  # of all information, what looks add at least


def hybrid(outputs: Outputs, batch: Batch) -> Weighed:
    """A look brings t [z l1 + (1 - z) l0] less what the look before brought, fading as the learner forgets impressions.

    z = 1 where a conversion is known, else P(y = 1 | x, s, not converted by a); t, `trust`, rises to 1 at the close. Of the
    look before both are taken as they are estimated now. Curvature is the information gained, t [f (1 - f) - z (1 - z)]
    less that of the look before (Louis, JRSS B 1982).
    """
    first, f = batch.look == Look.FIRST, outputs.f
    z = torch.where(batch.label > 0, 1.0, 1 - weights.real_negative(f, outputs.log_r)).detach()
    was = torch.where(batch.before > 0, 1.0, 1 - weights.real_negative(f, outputs.log_r_before)).detach()
    held = torch.where(first, 0.0, outputs.trust_before)
    counts = torch.exp2(-(batch.age - batch.elapsed) / (HALF * outputs.window)).to(z.dtype)  # 1 at the first look
    for_one = counts * (outputs.trust * z - held * was)
    for_zero = counts * (outputs.trust * (1 - z) - held * (1 - was))
    gained = counts * (outputs.trust * _information(f, z) - held * _information(f, was))
    share = torch.where(first, _share(gained, f, first), _share(gained, f, ~first))
    weight = torch.where(batch.label > 0, for_one, for_zero)
    weight = torch.where(first, torch.where(batch.label > 0, 1.0, 1 - z), weight)
    return Weighed(two_sided(outputs.logit, for_one, for_zero), weight, f, share[:, None])


def _information(f: Tensor, z: Tensor) -> Tensor:
    """Of a row in its logit: that of the complete data less what is missing."""
    return f * (1 - f) - z * (1 - z)


def _share(added: Tensor, f: Tensor, which: Tensor) -> Tensor:
    """Of the f (1 - f) of these rows, what is added: one for all of them, since that of a single row may be negative."""
    there = which.to(f.dtype)
    return ((there * added).sum() / (there * f * (1 - f)).sum().clamp(min=1e-12)).clamp(min=LEAST)
