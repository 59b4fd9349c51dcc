"""Health, readiness and measures."""

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from tests import pico
from tests.runtime.serving.conftest import Held
from tests.runtime.serving.material import Running, asked, data_url, running, shown
from vlmc.runtime.serving import Served


def measures(server: Running) -> dict[str, float]:
    """Return every sample by its name and labels."""
    text = httpx2.get(f"{server.url}/metrics").text
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_health_and_readiness(held: Held) -> None:
    assert httpx2.get(f"{held.url}/health").json() == {"status": "ok"}
    assert httpx2.get(f"{held.url}/ready").json() == {"status": "ready"}


def test_answers_tokens_and_times_are_measured(models: dict[str, Served]) -> None:
    with running(models) as server:
        found = [
            server.client().chat.completions.create(model="pico", messages=shown(data_url(pico.picture(seed))), max_tokens=6)
            for seed in range(3)
        ]
        httpx2.post(f"{server.url}/v1/chat/completions", json=asked(n=2))
        after = measures(server)
    by_model = "[('model', 'pico')]"
    usages = [one.usage for one in found if one.usage is not None]
    assert after[f"vlmc_generated_tokens_total{by_model}"] == sum(usage.completion_tokens for usage in usages)
    assert after[f"vlmc_prompt_tokens_total{by_model}"] == sum(usage.prompt_tokens for usage in usages)
    assert after[f"vlmc_first_token_seconds_count{by_model}"] == 3
    assert 0 < after[f"vlmc_first_token_seconds_sum{by_model}"] <= after[f"vlmc_answer_seconds_sum{by_model}"]
    assert sum(value for name, value in after.items() if name.startswith("vlmc_answers_total")) == 3
    assert after["vlmc_responses_total[('status', '200')]"] == 3
    assert after["vlmc_responses_total[('status', '400')]"] == 1
    assert after["vlmc_questions[('model', 'pico'), ('state', 'running')]"] == 0


def test_servers_of_one_process_measure_apart(models: dict[str, Served], server: Running) -> None:
    with running(models) as other:
        assert not any(name.startswith("vlmc_answers_total") for name in measures(other))
