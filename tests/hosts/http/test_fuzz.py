"""No request makes the server fail: 4xx for what is wrong, never 5xx.

A few hundred requests in the suite; ``python -m benchmarks.service_fuzz`` sends ten thousand to a
server in a process of its own.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.service import ServedModels, ServiceSettings
from tests.hosts.serving import running
from tests.service.conftest import fresh, nano_executor

pytest.importorskip("fastapi", reason="needs the extra http")
httpx = pytest.importorskip("httpx")
schemathesis = pytest.importorskip("schemathesis")

from sam2_blocks.hosts.http import create_app  # noqa: E402
from tests.hosts.fuzzing import check_openapi, large_requests, mutated_requests  # noqa: E402

__all__ = ["nano_executor"]

# A server prints warnings; only these tests would make errors of them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:boxes reach outside"),
    pytest.mark.filterwarnings("ignore:overflow encountered in cast"),
]

MUTATED = 200
FROM_OPENAPI = 25  # for each operation and mode


@pytest.fixture(scope="module")
def app(nano_executor):
    models = ServedModels({"nano": fresh(nano_executor)})
    plugins = load_plugins(strict=True, points=[])
    return create_app(models, ServiceSettings(url_timeout_s=1, deadline_s=600), plugins=plugins)


@pytest.fixture(scope="module")
def url(app):
    with running(app) as url:
        yield url


def test_mutated_requests_never_fail(url):
    statuses = Counter()
    with httpx.Client(base_url=url, timeout=600) as client:
        for number, fuzzed in enumerate(islice(mutated_requests(seed=0), MUTATED)):
            response = client.post(
                fuzzed.path, content=fuzzed.body, headers={"content-type": fuzzed.content_type}
            )
            statuses[response.status_code] += 1
            assert response.status_code < 500, (number, fuzzed.path, fuzzed.body[:500])
            if response.status_code >= 400:
                assert response.json()["message"]
        assert {200, 400, 404, 422} <= statuses.keys()
        assert client.get("/healthz").status_code == 200


def test_large_requests_never_fail(url):
    statuses = Counter()
    with httpx.Client(base_url=url, timeout=600) as client:
        for number, large in enumerate(large_requests()):
            response = client.post(
                large.path, content=large.body, headers={"content-type": large.content_type}
            )
            statuses[response.status_code] += 1
            assert response.status_code < 500, (number, large.path, large.body[:500])
            assert len(response.content) < 20_000, (number, response.text[:500])
        assert {200, 404, 413, 422} <= statuses.keys()
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_requests_made_from_our_openapi_never_fail(app, url, mode):
    def check(case):
        response = case.call(base_url=url, timeout=600)
        assert response.status_code < 500, (case.as_curl_command(), response.text)

    check_openapi(app.openapi(), check, mode=mode, examples=FROM_OPENAPI, derandomize=True)
    assert httpx.get(f"{url}/healthz").status_code == 200
