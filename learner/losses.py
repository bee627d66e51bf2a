"""Losses, one value per row; the caller reduces."""

from torch import Tensor
from torch.nn.functional import softplus


def log_loss(logit: Tensor, label: Tensor) -> Tensor:
    """Log loss of a logit: label 1 costs l1 = -log f, label 0 costs l0 = -log(1 - f). Shapes [B] -> [B]."""
    return softplus(logit, threshold=40) - logit * label  # exact to the last bits of float64
