"""The decoder gives its cache to a language model by the keyword that this release of transformers knows."""

from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from vlmc.toolchain.deploy.causal import Decoder


def answer(inputs_embeds: Tensor, cache: Any) -> SimpleNamespace:
    cache.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2), 0)
    return SimpleNamespace(logits=inputs_embeds)


class Before(nn.Module):
    def forward(self, *, inputs_embeds: Tensor, past_key_values: Any, **others: Any) -> SimpleNamespace:
        return answer(inputs_embeds, past_key_values)


def renames(forward: Any) -> Any:
    """As transformers 5.24 does it: the old keyword is warned of and handed on."""

    @wraps(forward)
    def renamed(self: nn.Module, **given: Any) -> Any:
        assert "past_key_values" not in given, "`past_key_values` is deprecated"
        return forward(self, **given)

    return renamed


class Since(nn.Module):
    @renames
    def forward(self, *, inputs_embeds: Tensor, cache: Any, **others: Any) -> SimpleNamespace:
        return answer(inputs_embeds, cache)


def test_both_keywords_for_the_cache() -> None:
    embeds, ones, past = torch.zeros(1, 1, 2), torch.ones(1, 3, dtype=torch.long), torch.zeros(1, 1, 2, 2)
    for model in (Before(), Since()):
        _, keys, values = Decoder(model, None)(embeds, ones, ones[:, :1], past, past)
        assert keys.shape == values.shape == (1, 1, 3, 2)


def test_in_place_the_last_new_token_of_each_row_gets_logits() -> None:
    states_BSD = torch.arange(2 * 4 * 3.0).reshape(2, 4, 3)
    mask_BT = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 0]])  # 3 and 2 tokens were there before
    given = (states_BSD, mask_BT, [torch.tensor([3, 2])])
    assert torch.equal(
        Decoder(Since(), None, in_place=True).asked(*given), torch.stack([states_BSD[0, 1:2], states_BSD[1, 3:]])
    )
    assert Decoder(Since(), None).asked(*given) is states_BSD
