"""OWL: blocks with more outliers among their scores lose fewer weights (arXiv 2310.05175).

Shapes: O out features, I in features.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from vlmc.toolchain.prune.ratios.sharing import meet

OUTLIER = 5.0  # M: an outlier is this many times the block's mean score
SPAN = 0.08  # lambda: the most that a block's fraction may differ from the target


def outliers(layers: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return a block's share of outliers, from 0 to 1 (equation 1), from its dense layers' weights (O, I) and squares (I).

    Scores are Wanda's, |W_ij| sqrt(H_jj); the mean is the whole block's. With no layers the share is 0.
    """
    numbers = sum(weight_OI.numel() for weight_OI, _ in layers)
    bound = OUTLIER * sum(float(_scores(*layer).sum()) for layer in layers) / max(numbers, 1)
    return sum(int((_scores(*layer) > bound).sum()) for layer in layers) / max(numbers, 1)


def owl(shares: Mapping[str, float], sizes: Mapping[str, int], target: float) -> dict[str, float]:
    """Return each block's fraction of zeros: the most outliers 2 lambda below the fewest, between them in proportion.

    `shares` are the blocks' shares of outliers, `sizes` their numbers of weights. Where that takes a block more than lambda
    from the target (most blocks alike, a few far off), it stays there and the others make up for it.
    """
    least, most = min(shares.values()), max(shares.values())
    drops = {block: 2 * SPAN * (share - least) / ((most - least) or 1.0) for block, share in shares.items()}
    low, high = max(target - SPAN, 0.0), min(target + SPAN, 1.0)

    def at(level: float) -> dict[str, float]:
        return {block: min(max(level - drop, low), high) for block, drop in drops.items()}

    return meet(target, sizes, at, low, high + 2 * SPAN)


def _scores(weight_OI: Tensor, squares_I: Tensor) -> Tensor:
    return weight_OI.detach().float().abs() * squares_I.sqrt()
