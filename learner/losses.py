"""Losses, one value per row; the caller reduces."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

TINY = 1e-30  # where a share is 0
LOG_RATES = (-2.0, 8.0)  # log lam of a delay, lam a window: between .14 and 2,981


def log_loss(logit: Tensor, label: Tensor) -> Tensor:
    """Log loss of a logit: label 1 costs l1 = -log f, label 0 costs l0 = -log(1 - f). Shapes [B] -> [B]."""
    return softplus(logit, threshold=40) - logit * label  # exact to the last bits of float64


def two_sided(logit: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """positive l1 + negative l0: a row that counts for both labels. Shapes [B] -> [B]."""
    return (positive + negative) * softplus(logit, threshold=40) - positive * logit


def mixture(logit: Tensor, log_r: Tensor) -> Tensor:
    """-log(f r + 1 - f): evidence that is r times as likely if y = 1. Shapes [B] -> [B]. Gradient in the logit: f - z."""
    return -torch.logaddexp(logsigmoid(logit) + log_r, logsigmoid(-logit))


def exponential_delay(logit: Tensor, log_rate: Tensor, label: Tensor, age: Tensor, delay: Tensor) -> Tensor:
    """-log likelihood of what is known at an age; delays are exponential and end with the window (after Chapelle, KDD 2014).

        converted after h     -log f - log lam + lam h + log(1 - exp(-lam))
        pending at age a      -log(1 - f + f S(a)),   S(a) = (exp(-lam a) - exp(-lam)) / (1 - exp(-lam))

    Times are shares of the window: ``age``, ``delay`` [B] in 0 .. 1, ``log_rate`` [B] = log lam. At a = 1 pending is
    -log(1 - f). The paper's delays do not end, which does not fit labels that do. Shapes: all [B] -> [B].
    """
    rate = _rate(log_rate)
    outside = (log_rate - log_rate.clamp(*LOG_RATES)).abs()  # where the rest is flat: it must find back
    converted = -logsigmoid(logit) - rate.log() + rate * delay + torch.log(-torch.expm1(-rate)) + outside
    return torch.where(label > 0, converted, mixture(logit, log_left(log_rate, age)))


def log_left(log_rate: Tensor, age: Tensor) -> Tensor:
    """log S(a) of `exponential_delay`. Shapes [B] -> [B]."""
    rate = _rate(log_rate)
    left = torch.expm1(-rate * (1 - age)) / torch.expm1(-rate) * torch.exp(-rate * age)
    return left.clamp(min=TINY).log()


def delay_information(log_rate: Tensor) -> Tensor:
    """What one delay tells of log lam: the variance of lam h, 1 - lam^2 exp(-lam) / (1 - exp(-lam))^2, .01 at least.
    Shapes [B] -> [B]."""
    rate = _rate(log_rate)
    return (1 - rate.square() * torch.exp(-rate) / torch.expm1(-rate).square()).clamp(min=0.01)


def _rate(log_rate: Tensor) -> Tensor:
    """lam, held within LOG_RATES."""
    return log_rate.clamp(*LOG_RATES).exp()
