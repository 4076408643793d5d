"""Requests that are wrong in every way we can think of, for `test_fuzz` and the benchmark."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import random
import string
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from sam2_blocks.hosts.http import docs
from tests.service.conftest import as_request, box, picture, point, to_base64

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
    *({"type": type_, "value": "AAAA"} for type_ in ("pil", "multipart", "numpy_object", "URL")),
    *({"type": "numpy", "value": "gASVAA=="}, {"type": "base64", "value": "////"}),
    *({"box": {"x": 0, "y": 0, "width": 1e-30, "height": 1e30}}, {"points": [point(1e9, 1)]}),
]


LONG = 500_000
BOUNDARY = "x"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


class Fuzzed(NamedTuple):
    """One request, ready to be posted."""

    path: str
    content_type: str
    body: bytes


def mutated_requests(seed: int) -> Iterator[Fuzzed]:
    """Spoil valid requests by hand, without end, the same for every seed."""
    rng = random.Random(seed)
    while True:
        path, valid = rng.choice(VALID)
        document = mutate(valid, rng)
        kind, write = rng.choice([("application/json", to_json)] * 4 + [(FORM, to_form)])
        yield Fuzzed(path, kind if rng.random() < 0.97 else FORM, spoil_body(write(document), rng))


def large_requests() -> Iterator[Fuzzed]:
    """Requests that are large in one way: one very long text, very many steps, a long chain."""
    for path, valid in VALID:
        for place in paths_of(valid):
            if place and isinstance(value_at(valid, place), str):
                document = copy.deepcopy(valid)
                value_at(document, place[:-1])[place[-1]] = "a" * LONG
                yield Fuzzed(path, "application/json", to_json(document))
                renamed = value_at(document, place[:-1])
                if isinstance(renamed, dict):
                    renamed["a" * LONG] = renamed.pop(place[-1])
                    yield Fuzzed(path, "application/json", to_json(document))
    for count in (100, 101, 20_000):
        alone, chain = [0] * count, [number - 1 for number in range(count)]
        backwards = [(number + 1) % count for number in range(count)]
        for needs in (alone, chain, backwards):
            document = to_json(many_steps(count, needs))
            yield Fuzzed("/pipelines/run", "application/json", document)


def many_steps(count: int, needs: list[int]) -> dict[str, Any]:
    """A pipeline whose steps each draw on the picture of another, or, for 0, on the input."""
    example = docs.EXAMPLES["pipeline"]
    pipeline = copy.deepcopy(example["pipeline"])
    for number in range(1, count):
        needed = needs[number]
        image = f"$steps.draw{needed}.image" if needed > 0 else "$inputs.image"
        pipeline["steps"][f"draw{number}"] = {
            "use": "draw/masks@v1",
            "with": {"image": image, "predictions": "$steps.segment.predictions"},
        }
    pipeline["outputs"] = {"image": f"$steps.draw{count - 1}.image"}
    return {**example, "pipeline": pipeline}


def value_at(document: Any, path: tuple[Any, ...]) -> Any:
    """What is at a place inside a document."""
    for key in path:
        document = document[key]
    return document


def check_openapi(
    page: dict[str, Any],
    check: Callable[[schemathesis.Case], None],
    *,
    mode: schemathesis.GenerationMode,
    examples: int,
    derandomize: bool,
) -> None:
    """Let schemathesis make requests from an OpenAPI page.

    Not through its pytest plugin, which knows one version of pytest only.

    Args:
        page: the OpenAPI page.
        check: called with each request.
        mode: whether requests fit the page or not.
        examples: most requests for each operation.
        derandomize: the same requests every time.
    """
    options = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=derandomize,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    for result in schemathesis.openapi.from_dict(page).get_all_operations():
        cases = result.ok().as_strategy(generation_mode=mode)
        with contextlib.suppress(Unsatisfiable):  # nothing can be wrong without parameters
            options(given(cases)(lambda case: check(case)))()


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
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        path = rng.choice([path for path in paths_of(document) if path] or [()])
        if not path:
            return document
        parent = value_at(document, path[:-1])
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


def to_json(document):
    """Write it as JSON."""
    return json.dumps(document).encode()


def to_form(document):
    """Write it as a form; an image becomes a file."""
    body = b""
    for name, value in document.items():
        disposition = f'form-data; name="{name}"'
        content = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        if name == "image" and isinstance(value, dict) and isinstance(value.get("value"), str):
            disposition += '; filename="a.png"'
            with contextlib.suppress(ValueError):
                content = base64.b64decode(value["value"])
        head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n"
        body += head.encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def spoil_body(body, rng):
    """Now and then change or cut off some bytes."""
    spoilt = bytearray(body)
    if rng.random() < 0.1:
        for _ in range(rng.randint(1, 5)):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
    return bytes(spoilt if rng.random() < 0.97 else spoilt[: rng.randrange(len(spoilt) + 1)])
