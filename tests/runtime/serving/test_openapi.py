"""What the server says of itself is true: requests made from its own description get no 500, and what it describes."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.runtime.serving.material import Running

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]


OPERATIONS = [
    ("/v1/chat/completions", "POST"),
    ("/v1/models", "GET"),
    ("/v1/models/{name}", "GET"),
    ("/health", "GET"),
    ("/ready", "GET"),
    ("/metrics", "GET"),
]


@pytest.fixture(scope="module")
def described(server: Running) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.slow
def test_every_operation_is_tried(described: schemathesis.BaseSchema) -> None:
    found = [result.ok() for result in described.get_all_operations()]
    assert [(operation.path, operation.method.upper()) for operation in found] == OPERATIONS


bounded = settings(
    deadline=None, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_no_request_makes_it_fail(described: schemathesis.BaseSchema, path: str, method: str, mode: GenerationMode) -> None:
    operation = described[path][method]
    if mode.is_negative and not operation.body:
        pytest.skip("there is nothing in it that could be wrong")

    @settings(bounded, max_examples=200 if operation.body else 20)
    @given(case=operation.as_strategy(mode))
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    check()
