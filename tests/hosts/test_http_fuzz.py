"""No request makes the server fail: 4xx for what is wrong, never 5xx.

A few hundred requests in the suite; ``FUZZ_REQUESTS=10000 pytest tests/hosts/test_http_fuzz.py``
sends as many as are asked for, half of them made by hand, half by schemathesis from our OpenAPI.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import os
import random
import string
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from sam2_blocks.plugins import load_plugins
from sam2_blocks.service import ServedModels, ServiceSettings
from tests.hosts.serving import running
from tests.service.conftest import as_request, box, fresh, nano_executor, picture, point, to_base64

pytest.importorskip("fastapi", reason="needs the extra http")
httpx = pytest.importorskip("httpx")
schemathesis = pytest.importorskip("schemathesis")

from sam2_blocks.hosts.http import create_app, docs  # noqa: E402

__all__ = ["nano_executor"]

# A server prints warnings; only these tests would make errors of them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:boxes reach outside"),
    pytest.mark.filterwarnings("ignore:overflow encountered in cast"),
]

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "400"))
WITH_BODY = 4  # operations; the others have little to vary
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
PICTURE = picture(0, (20, 30))
VALID = [
    ("/sam2/embed_image", docs.EXAMPLES["embed"]),
    ("/sam2/segment_image", docs.EXAMPLES["segment"]),
    (
        "/sam2/segment_image",
        {
            "image": as_request(PICTURE),
            "image_id": "a",
            "format": "json",
            "prompts": {"prompts": [box(2, 2, 9, 9), {"points": [point(3, 3), point(5, 5)]}]},
            "multimask_output": False,
            "save_logits_to_cache": True,
            "load_logits_from_cache": True,
            "min_confidence": 0.1,
            "tolerance": 1,
            "sam2_version_id": "nano",
        },
    ),
    (
        "/sam2/segment_image",
        {"image_id": "a", "format": "binary", "prompts": [{"point_coords": [[1, 2]]}]},
    ),
    (
        "/sam2/segment_image",
        {"image_id": "a", "automatic_masks": {"points_per_side": 2, "pred_iou_thresh": 0}},
    ),
    ("/pipelines/run", docs.EXAMPLES["pipeline"]),
    ("/pipelines/none/run", docs.EXAMPLES["inputs"]),
]
ODD = [
    *(None, True, False, 0, -1, 1e308, -1e308, 2**63, 10**400, float("nan"), float("inf")),
    *("", "x", "\x00", "é", "../../etc/passwd", "$inputs.image", "$steps.a.b", "nano", "a" * 5000),
    *([], {}, [[]], [{}], {"": None}, [None] * 50, [[0, 0]], {"prompts": {"prompts": []}}),
    *({"type": "file", "value": "/etc/passwd"}, {"type": "url", "value": "http://127.0.0.1:1/a"}),
    *({"type": "numpy", "value": "gASVAA=="}, {"type": "base64", "value": "////"}),
    *({"box": {"x": 0, "y": 0, "width": 1e-30, "height": 1e30}}, {"points": [point(1e9, 1)]}),
]


@pytest.fixture(scope="module")
def app(nano_executor):
    models = ServedModels({"nano": fresh(nano_executor)})
    plugins = load_plugins(strict=True, points=[])
    return create_app(models, ServiceSettings(url_timeout_s=1), plugins=plugins)


@pytest.fixture(scope="module")
def url(app):
    with running(app) as url:
        yield url


def paths_of(value, path=()):
    """Every place inside a document."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths_of(inner, (*path, key))


def mutate(document, rng):
    """Change up to three places: remove, replace, swap, repeat or rename something."""
    document = copy.deepcopy(document)
    if "image" in document and rng.random() < 0.3:
        document["image"]["value"] = spoil_text(document["image"]["value"], rng)
        return document
    for _ in range(rng.choice([1, 1, 2, 3])):
        path = rng.choice([path for path in paths_of(document) if path] or [()])
        if not path:
            return document
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        match rng.randrange(5):
            case 0:
                del parent[path[-1]]
            case 1 if isinstance(parent, dict):
                parent["".join(rng.choices(string.printable, k=5))] = parent.pop(path[-1])
            case 2:
                parent[path[-1]] = [copy.deepcopy(parent[path[-1]])] * rng.choice([1, 2, 30])
            case 3 if isinstance(parent[path[-1]], str):
                parent[path[-1]] = spoil_text(parent[path[-1]], rng)
            case _:
                parent[path[-1]] = copy.deepcopy(rng.choice(ODD))
    return document


def spoil_text(text, rng):
    """Cut it, turn it, or change some of its characters or, for an image, of its bytes."""
    match rng.randrange(4):
        case 0:
            return text[: rng.randrange(len(text) + 1)]
        case 1:
            return text[::-1]
        case 2:
            return "".join(c if rng.random() < 0.95 else rng.choice(string.printable) for c in text)
        case _:
            file = bytearray(base64.b64decode(to_base64(PICTURE, rng.choice(FORMATS))))
            for _ in range(rng.randint(1, 20)):
                file[rng.randrange(len(file))] = rng.randrange(256)
            return base64.b64encode(file).decode()


def body_of(document, rng):
    """Write it as JSON, now and then with wrong bytes inside."""
    body = bytearray(json.dumps(document).encode())
    if rng.random() < 0.1 and body:
        for _ in range(rng.randint(1, 5)):
            body[rng.randrange(len(body))] = rng.randrange(256)
    return bytes(body if rng.random() < 0.97 else body[: rng.randrange(len(body) + 1)])


def test_mutated_requests_never_fail(url):
    rng = random.Random(0)
    statuses = Counter()
    with httpx.Client(base_url=url, timeout=60) as client:
        for number in range(REQUESTS // 2):
            path, document = rng.choice(VALID)
            body = body_of(mutate(document, rng), rng)
            kind = rng.choice(["application/json"] * 9 + ["multipart/form-data; boundary=x"])
            response = client.post(path, content=body, headers={"content-type": kind})
            statuses[response.status_code] += 1
            assert response.status_code < 500, (number, path, body[:500], response.text)
            if response.status_code >= 400:
                assert response.json()["message"]
        print(dict(statuses))
        assert {200, 400, 404, 422} <= statuses.keys()
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_requests_made_from_our_openapi_never_fail(app, url, mode):
    """Not through the pytest plugin of schemathesis, which knows one version of pytest only."""
    operations = [
        result.ok() for result in schemathesis.openapi.from_dict(app.openapi()).get_all_operations()
    ]
    statuses = Counter()
    for operation in operations:

        @settings(
            max_examples=max(1, REQUESTS // 4 // WITH_BODY),
            deadline=None,
            database=None,
            derandomize="FUZZ_REQUESTS" not in os.environ,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(operation.as_strategy(generation_mode=mode))
        def check(case):
            response = case.call(base_url=url)
            statuses[response.status_code] += 1
            assert response.status_code < 500, (case.as_curl_command(), response.text)

        with contextlib.suppress(Unsatisfiable):  # nothing can be wrong without parameters
            check()
    print(dict(statuses))
    assert httpx.get(f"{url}/healthz").status_code == 200
