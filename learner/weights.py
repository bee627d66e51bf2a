"""Importance weights: what a row observed under Q(x, y) counts for under P(x, y). All are constant to the gradient.

f = P(y = 1 | x), the served model; p_dp = P(y = 1, h > e | x), a delayed positive; p_rn = P(y = 0 | x, s, not converted
by e), a real negative among observed negatives; h the delay, e the elapsed time of the first look, s the signals by then.
"""

import torch
from torch import Tensor

EPS = 1e-5  # estimates are clipped to [EPS, 1 - EPS]; weights are not


def clip(probability: Tensor) -> Tensor:
    """An estimate, kept away from 0 and 1."""
    return probability.clamp(EPS, 1 - EPS)


def clipped(probability: Tensor) -> Tensor:
    """Which estimates the clip changes: [B] bool."""
    return (probability < EPS) | (probability > 1 - EPS)


def real_negative(f: Tensor, log_r: Tensor) -> Tensor:
    """p_rn(x, s, e) from the prior f [B] and the log likelihood ratio of the evidence log_r [B].

        z    = P(y = 1 | x, s, not converted by e) = f r / (f r + 1 - f)
        p_rn = 1 - z,   r(x, s, e) = P(s, h > e | x, y = 1) / P(s | x, y = 0)

    Prior and likelihood are kept apart: the prior is the current model, so it moves with the market at once.
    """
    return torch.sigmoid(-(torch.logit(clip(f)) + log_r))


def joint_ratio(p_rn: Tensor, label: Tensor) -> Tensor:
    """Joint importance weight P(x, s, y) / Q(x, s, y), up to a constant.

        w(x, s, y = 1) = 1          w(x, s, y = 0) = p_rn(x, s)

    Valid for rows seen once at the elapsed time e and again on a delayed positive: per (x, s) that log holds
    P(y = 1) rows of label 1 and P(y = 0) + P(y = 1, h > e) rows of label 0. One impression keeps one unit of mass.

    Shapes: all [B]. Returns [B] in [0, 1].
    Differs from ES-DFM, which uses the conditional ratio: see `es_dfm` and docs/methods.md.
    """
    return torch.where(label > 0, 1.0, clip(p_rn)).detach()


def es_dfm(p_dp: Tensor, p_rn: Tensor, label: Tensor) -> Tensor:
    """Conditional importance weight P(y | x) / Q(y | x) of ES-DFM (Yang et al., AAAI 2021).

        w1 = 1 + p_dp               w0 = (1 + p_dp) p_rn

    Valid for the same rows as `joint_ratio`. Shapes: all [B]. Returns [B] in [0, 2].
    """
    return ((1 + clip(p_dp)) * torch.where(label > 0, 1.0, clip(p_rn))).detach()


def fnw(f: Tensor, label: Tensor) -> Tensor:
    """Fake negative weighted (Ktena et al., RecSys 2019).

        w1 = 1 + f                  w0 = (1 - f) (1 + f)

    Valid for rows seen at the impression with label 0, and again on a conversion. Shapes: all [B]. Returns [B] in [0, 2].
    """
    f = clip(f)
    return ((1 + f) * torch.where(label > 0, 1.0, 1 - f)).detach()


def fsiw(p_early: Tensor, p_rn: Tensor, label: Tensor) -> Tensor:
    """Feedback shift importance weights (Yasui et al., WWW 2020).

        w1 = 1 / P(S = 1 | C = 1, x, e)          w0 = P(C = 0 | Y = 0, x, e)

    S = 1: a conversion (C = 1) is known by e (Y = 1). Valid for rows seen once, at e. ``p_early`` [B] is clipped, so that
    w1 is bounded by 1 / EPS. Shapes: all [B].
    """
    return torch.where(label > 0, 1 / clip(p_early), clip(p_rn)).detach()


def defer(f: Tensor, p_dp: Tensor, label: Tensor) -> Tensor:
    """Real negative oversampling of DEFER (Gu et al., KDD 2021).

        w1 = f / (f - p_dp / 2)          w0 = (1 - f) / (1 - f + p_dp / 2),          p_dp <= f

    Valid for rows seen twice: at e, and at a later conversion or else at the close. Per x that log holds 2 p - p_dp rows of
    label 1 and 2 (1 - p) + p_dp of label 0. Shapes: all [B]. Returns [B] in [0, 2].
    """
    f = clip(f)
    late = torch.minimum(clip(p_dp), f)
    return torch.where(label > 0, f / (f - late / 2), (1 - f) / (1 - f + late / 2)).detach()
