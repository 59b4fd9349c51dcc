"""What a model's own code raises is one line; a lack of memory stays what it is."""

import pytest
import torch

from vlmc.runtime.errors import InputError
from vlmc.toolchain.models.own_code import own_code

ERRORS = (RuntimeError("a\nb"), IndexError("b"), ValueError("c"), AttributeError("d"), KeyError("e"))
LACKS = (torch.OutOfMemoryError("x"), MemoryError(), RuntimeError("can't allocate memory: 9 bytes"))


@pytest.mark.parametrize("error", ERRORS)
def test_errors_of_a_model_are_one_line(error: Exception) -> None:
    told = rf"^the model cannot be run \({type(error).__name__}: .*\): its config"
    with pytest.raises(InputError, match=told) as raised, own_code():
        raise error
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", LACKS)
def test_a_lack_of_memory_stays_one(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, own_code():
        raise error
    assert raised.value is error
