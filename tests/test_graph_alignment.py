"""One rotation for both sides: it is found again, and leaves every rel as it was."""

import pytest
import torch

from learner.graph.alignment import align
from learner.graph.embeddings import Embeddings, unbiased
from learner.graph.evaluation import scores_of

NODES, WIDE = 50, 6


def places(seed: int, nodes: int = NODES) -> Embeddings:
    chance = torch.Generator().manual_seed(seed)
    source, target = (torch.randn(nodes, WIDE, generator=chance) for _ in range(2))
    bias = torch.randn(2, nodes, generator=chance)
    return unbiased(source, target)._replace(source_bias=bias[0], target_bias=bias[1])


def turned(given: Embeddings, seed: int = 7) -> Embeddings:
    """In another orthogonal basis."""
    basis = torch.linalg.qr(torch.randn(WIDE, WIDE, generator=torch.Generator().manual_seed(seed))).Q
    return given._replace(source=given.source @ basis, target=given.target @ basis)


def test_a_known_rotation_is_found() -> None:
    old = places(0)
    found = align(turned(old), old)
    assert torch.allclose(found.embeddings.source, old.source, atol=1e-5)
    assert torch.allclose(found.embeddings.target, old.target, atol=1e-5)
    assert found.residual < 1e-5
    assert found.overlap == 1.0


def test_every_rel_stays() -> None:
    """Also where there is nothing to be found, and with products that are in one version only."""
    new, old = places(1, NODES + 9), places(2)
    common = torch.stack([torch.arange(9, NODES + 9), torch.arange(NODES)])
    found = align(new, old, common)
    everyone = torch.arange(NODES + 9)
    assert torch.allclose(scores_of(found.embeddings)(everyone), scores_of(new)(everyone), atol=1e-5)
    assert torch.equal(found.embeddings.target_bias, new.target_bias)
    assert found.residual > 0.5
    assert found.overlap < 0.6
    alone = turned(old)
    shifted = alone._replace(**{side: torch.cat([getattr(alone, side)] * 2)[9 : NODES + 9] for side in alone._fields})
    back = torch.stack([(torch.arange(NODES) - 9) % NODES, torch.arange(NODES)])
    assert align(shifted, old, back).residual < 1e-5


def test_no_rotation_is_better() -> None:
    """Against random ones, and against turning each side for itself, which fits more and breaks rel."""
    new, old = places(1), places(2)
    best = align(new, old).residual
    there = torch.cat([old.source, old.target])
    for seed in range(50):
        other = turned(new, seed)
        assert float((torch.cat([other.source, other.target]) - there).norm() / there.norm()) >= best


def test_what_is_not_known_does_not_count() -> None:
    """Rows that are not valid are noise; without valid ones, or with another width, there is no way back."""
    old = places(0)
    new = turned(old)
    noise = torch.arange(NODES) < 10
    wild = new._replace(
        source=torch.where(noise[:, None], 100.0, new.source), asks=new.asks & ~noise, answers=new.answers & ~noise
    )
    assert align(wild, old).residual < 1e-5
    nobody = torch.zeros(NODES, dtype=torch.bool)
    with pytest.raises(ValueError, match="0 places are known in both"):
        align(new._replace(asks=nobody, answers=nobody), old)
    with pytest.raises(ValueError, match="widths 5 and 6"):
        align(new._replace(source=new.source[:, 1:], target=new.target[:, 1:]), old)
