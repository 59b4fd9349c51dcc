"""ADMM pruning with a gradual mask (ADMM-Grad, arXiv 2401.02938, algorithm 1; see also ALPS, NeurIPS 2024).

Weights and mask are found together: V minimises the layer's output error, Z obeys the mask, and U pulls them together. The
loop ends with an update of V, so the result is a last projection Z of V + U.
Shapes: O out features, I in features; inside, weights are scaled: V_OI = W_OI D with D = sqrt(diag H).
"""

import torch
from torch import Tensor

from vlmc.runtime.sparsity import SparsityPattern
from vlmc.toolchain.calibration.statistics import Statistics
from vlmc.toolchain.prune.methods.base import Found
from vlmc.toolchain.prune.methods.hessian import dead_inputs, inverse_with

ITERATIONS = 20
GRADUAL = 15  # iterations until the mask is final
DAMPING = 0.1  # of the mean of the normalised Hessian's diagonal
RHO = 1.0


def admm(weight_OI: Tensor, statistics: Statistics, pattern: SparsityPattern) -> Found:
    """Minimise the layer's output error over weights that obey the pattern.

    Raises:
        CheckFailed: the Hessian cannot be inverted even with strong damping.
    """
    assert statistics.hessian_II is not None
    dead_I = dead_inputs(statistics)
    scale_I = statistics.hessian_II.diagonal().sqrt().masked_fill(dead_I, 1.0)
    correlation_II = statistics.hessian_II / scale_I
    correlation_II /= scale_I[:, None]
    normal_II, inverse_II, raised = inverse_with(correlation_II, RHO, DAMPING)
    v_OI = (weight_OI * scale_I).masked_fill_(dead_I, 0.0)
    pull_OI = v_OI @ normal_II
    del correlation_II, normal_II
    u_OI, mask_OI = torch.zeros_like(v_OI), torch.ones_like(weight_OI, dtype=torch.bool)
    for step in range(1, ITERATIONS + 1):
        u_OI += v_OI
        if step <= GRADUAL:
            mask_OI = gradual_mask(u_OI.abs(), pattern, step / GRADUAL)
        z_OI = u_OI.masked_fill(~mask_OI, 0.0)
        u_OI -= z_OI
        torch.mm(pull_OI + RHO * (z_OI - u_OI), inverse_II, out=v_OI)
    return Found(v_OI.add_(u_OI).masked_fill_(~mask_OI, 0.0).div_(scale_I), mask_OI, raised)


def gradual_mask(scores_OI: Tensor, pattern: SparsityPattern, progress: float) -> Tensor:
    """Return the keep-mask (O, I) at `progress` in (0, 1]: sparsity follows s - s (1 - progress)^3, final at 1.

    What the final mask would keep is always kept; of the rest the smallest of the whole layer go first.
    """
    final_OI = pattern.mask(scores_OI)
    if progress >= 1:
        return torch.as_tensor(final_OI)
    excess = round(int((~final_OI).sum()) * (1 - progress) ** 3)
    if not excess:
        return torch.as_tensor(final_OI)
    spare_OI = scores_OI.masked_fill(final_OI, -torch.inf)
    extra = spare_OI.flatten().topk(excess, sorted=False).indices
    return torch.as_tensor(final_OI.flatten().index_fill(0, extra, True).reshape(final_OI.shape))
