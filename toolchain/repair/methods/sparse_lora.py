"""RESSA's SparseLoRA, mask-preserving LoRA (arXiv 2404.02424).

"SparseLoRA" is also the name of another method (arXiv 2506.16500, contextual sparsity), which this is not.
Shapes: O out features, I in features; `*` any leading dimensions.
"""

from torch import Tensor

from vlmc.toolchain.repair.kernels import masked_linear
from vlmc.toolchain.repair.methods.low_rank import MaskedLowRank


class SparseLoRA(MaskedLowRank):
    """`W_hat = W + s (B A) * M`: gradients pass through the mask, so pruned weights never move (RESSA, section 3.3).

    The mask is the one given, never `W != 0`: a kept weight that is zero is trained like any other. It takes one bit a
    weight, and the update is never whole in memory in training: see `masked_linear`.
    """

    def adapted(self, x: Tensor) -> Tensor:
        return masked_linear(x, self.weight, self.bias, self.packed(), self.lora_A, self.lora_B, self.scale, self.kernel)
