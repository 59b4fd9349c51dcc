"""Token policies: which tokens of the language model's input count in the statistics of its layers.

Shapes: T tokens of one sample, V visual ones among them, D hidden size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cosine_similarity

from vlmc.runtime.errors import InputError
from vlmc.toolchain.models.streaming.stack import Passed

ALPHA_VISUAL = 1.0  # atv: visual tokens kept per text token and unit of mean drift

Weigh = Callable[[Tensor, Callable[[], Passed]], Tensor]
"""(visual_T, a function that runs the block on the sample) -> weights_T."""


def text(visual_T: Tensor, run: Callable[[], Passed]) -> Tensor:
    """Return weights (T): one for text, zero for visual tokens."""
    return (~visual_T).float()


def atv(visual_T: Tensor, run: Callable[[], Passed]) -> Tensor:
    """Return weights (T): one for text and for the visual tokens that the block changes most, zero for the others.

    The number of visual tokens kept is min(1, alpha times their mean drift) times the number of text tokens. A token's drift
    is one minus the cosine between its input and its output (ATV-Pruning, arXiv 2603.16001).
    """
    passed = run()
    before_VD, after_VD = (both.reshape(len(visual_T), -1)[visual_T] for both in (passed.before, passed.after))
    drift_V = (1 - cosine_similarity(before_VD.float(), after_VD.float(), dim=-1)).nan_to_num(1.0).cpu()
    share = min(1.0, ALPHA_VISUAL * float(drift_V.mean()))  # NaN: counted as changed, so that the statistics report it
    count = min(round(share * int((~visual_T).sum())), len(drift_V))
    weights_T = (~visual_T).float()
    weights_T[visual_T.nonzero()[:, 0][drift_V.topk(count).indices]] = 1.0
    return weights_T


WEIGHERS: dict[str, Weigh] = {"text": text, "atv": atv}
"""By the name of the policy; `all` has none."""


@dataclass(frozen=True)
class Tokens:
    """A policy, and which tokens of each calibration sample are visual."""

    weigh: Weigh
    visual: Sequence[Tensor]  # of each sample: boolean (T)

    @classmethod
    def choose(cls, policy: str, visual: Sequence[Tensor], names: Sequence[str]) -> "Tokens | None":
        """Return the policy of that name; None where all tokens count alike. `names` are those of the samples, for errors.

        Raises:
            InputError: a sample has no visual token, or nothing else.
        """
        if policy == "all":
            return None
        for name, visual_T in zip(names, visual, strict=True):
            lacking = "visual" if not bool(visual_T.any()) else "text" if bool(visual_T.all()) else None
            if lacking:
                raise InputError(f"--tokens {policy}: calibration sample {name} has no {lacking} token: use --tokens all")
        return cls(WEIGHERS[policy], visual)

    def weights(self, sample: int, run: Callable[[], Passed]) -> Tensor:
        """Return the weights (T) of one sample's tokens at a block; `run` runs the block on the sample."""
        return self.weigh(self.visual[sample], run)
