"""The tokens of a request whose images all have the same number of them."""

import pytest

from tests import pico
from tests.runtime.conftest import Reference, refer
from vlmc.runtime.deployment import FixedProcessor
from vlmc.runtime.processing import Request
from vlmc.runtime.processing.fixed import Fixed
from vlmc.runtime.text import Text


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return refer("llava", tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("form", ["{0}\nwhat ?", "what {0} is it", " {0}  {0} the  {0}", "{0}", "before {0}"])
def test_an_image_s_tokens_are_those_of_as_many_slots(form: str, llava: Reference) -> None:
    deployment, text = llava.deployment, Text(llava.folder)
    assert isinstance(deployment.processor, FixedProcessor)
    slot, count = deployment.prompt.slot, deployment.processor.image_tokens
    assert text.stands_apart(deployment.image_token_id)
    asked = form.format(slot)
    request = Request(asked, tuple(pico.picture(seed) for seed in range(asked.count(slot))))
    ids = Fixed(deployment, deployment.processor, text).encode(request)
    assert ids == text.encode(asked.replace(slot, slot * count))
    assert ids.count(deployment.image_token_id) == count * asked.count(slot)
