"""What a method is made of: what its loss is given, what it says, its auxiliary models, and the method as one value."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from learner.batch import Batch
from learner.model import Shape
from learner.schedules import Looks


class Outputs(NamedTuple):
    """What a loss may use: the heads, and the auxiliaries' estimates. All [B]; only the heads carry a gradient.

    ``logit``: of the first head; ``other``: of the second. ``window``: attribution window, s.
    ``log_r``: log P(s, h > a | x, y = 1) / P(s | x, y = 0), a the age of the look, or e where one is not looked at by age;
    ``log_r_before``: at the age of the look before. ``p_dp``: P(y = 1, h > e | x). ``p_rn``: P(y = 0 | x, s, not
    converted by e). ``p_early``: P(h <= e | x, y = 1). ``reveal``: weight of a look by its age, see `learner/reveals.py`.
    ``trust``: in 0 .. 1, what the evidence behind ``log_r`` counts for; ``trust_before``: behind ``log_r_before``.
    What no auxiliary estimates is NaN, so a method that uses it by mistake is seen at once.
    """

    logit: Tensor
    other: Tensor
    window: Tensor
    log_r: Tensor
    log_r_before: Tensor
    p_dp: Tensor
    p_rn: Tensor
    p_early: Tensor
    reveal: Tensor
    trust: Tensor
    trust_before: Tensor

    @property
    def f(self) -> Tensor:
        """sigmoid of the first head, constant to the gradient: P(y = 1 | x) as served now, where that is what is served."""
        return torch.sigmoid(self.logit.detach())


class Weighed(NamedTuple):
    """What a loss says of B rows. Only ``loss`` carries a gradient.

    ``loss`` [B]. ``weight`` [B]: importance weight, recorded and audited; of a label 0, what it counts for as a negative.
    ``estimates`` [B, ...]: what the weights are made of, for the count of clipped ones.
    ``curvature`` [B, heads]: what each row counts for in a head's Newton step, in units of p (1 - p).
    """

    loss: Tensor
    weight: Tensor
    estimates: Tensor
    curvature: Tensor


class Auxiliary(NamedTuple):
    """A model beside the model, as three functions. Its state is a NamedTuple of tensors, saved with the weights.

    ``init(shape, elapsed, window)`` -> state; ``estimate(state, batch, f)`` -> named estimates [B], where those called
    ``log_r`` add up; ``update(state, outcomes, f)`` -> state. It sees only outcomes that have arrived. One that is ``whole``
    also sees first looks, and f [B], what is served for each row now; the others get NaN.
    """

    init: Callable[[Shape, float, float], Any]
    estimate: Callable[[Any, Batch, Tensor], dict[str, Tensor]]
    update: Callable[[Any, Batch, Tensor], Any]
    whole: bool = False


class DelayedFeedback(NamedTuple):
    """A way of learning from labels that arrive late.

    ``looks(elapsed, window)``: when to look. ``loss(outputs, batch)``: what is minimised, see `Weighed`.
    ``optimum(p, p_dp)``: where the served probability ends up. ``weighs``: the weights of label 0 are audited.
    ``heads``: how many models there are, each with a logit. ``serve(logits...)`` [R] each -> the served probability [R].
    ``starts(base_rate, elapsed, window)``: sigmoid of the logit with which each head begins, before anything is learned.
    ``wanders``: each look is right by itself, so that the intercept may follow the newest ones, as a random walk.
    ``inherits``: so many heads go on from the weights of a pre-training, shifted by what ``starts`` is off the base rate.
    """

    looks: Callable[[float, float], Looks]
    loss: Callable[[Outputs, Batch], Weighed]
    auxiliaries: tuple[str, ...] = ()
    optimum: Callable[[float, float], float] = lambda p, p_dp: p
    weighs: bool = True
    heads: int = 1
    serve: Callable[..., Tensor] = torch.sigmoid
    starts: Callable[[float, float, float], tuple[float, ...]] = lambda base_rate, elapsed, window: (base_rate,)
    inherits: int = 1
    wanders: bool = False
