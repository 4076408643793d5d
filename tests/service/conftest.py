from __future__ import annotations

import asyncio
import base64
import io

import numpy as np
import pytest
from PIL import Image as Pil

from sam2_blocks.executor import load
from sam2_blocks.executor.weights.download import CACHE_VARIABLE
from sam2_blocks.masks.rle import rle_to_mask
from sam2_blocks.requests import Sam2EmbeddingRequest, Sam2SegmentationRequest
from sam2_blocks.service import ServedModels, Service, ServiceSettings
from sam2_blocks.service.opening import ImageOpener
from sam2_blocks.service.threads import Workers
from sam2_blocks.values import Image
from tests.executor.conftest import WAYS, load_int8

SEED = 7
EVERY_WAY = pytest.mark.parametrize("nano_executor", WAYS, indirect=True)
"""Runs a test with whatever may compute the network."""


@pytest.fixture(scope="session")
def nano_executor(request, tmp_path_factory):
    """The smallest network, with random weights, computed by torch unless `EVERY_WAY` is asked."""
    way = getattr(request, "param", "torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("compiled")))
        if way == "int8":
            return load_int8(seed=SEED)
        return load("nano", device="cpu", seed=SEED, backend=way)


@pytest.fixture
def make_service(nano_executor):
    """``make_service(setting=value)``; a fresh executor shares the weights, not the cache."""
    services = []

    def make(executor=None, observe=None, **settings):
        chosen = ServiceSettings(**settings)
        executor = executor or fresh(nano_executor, chosen)
        services.append(Service(ServedModels({"nano": executor}), chosen, observe=observe))
        return services[-1]

    yield make
    for service in services:
        service.close()


def fresh(executor, settings=None):
    settings = settings or ServiceSettings()
    return type(executor)(
        executor.model,
        cache_bytes=settings.embedding_bytes,
        cache_entries=settings.embedding_entries,
        cache_dir=settings.embedding_dir,
    )


def picture(seed: int = 0, hw: tuple[int, int] = (60, 80)) -> Image:
    """A small picture of smooth blobs, different for every seed."""
    rng = np.random.default_rng(seed)
    small = Pil.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return Image(np.array(small.resize((hw[1], hw[0]), Pil.Resampling.BICUBIC)), f"picture {seed}")


def to_base64(image: Image, file_format: str = "PNG") -> str:
    stream = io.BytesIO()
    Pil.fromarray(image.pixels).save(stream, file_format)
    return base64.b64encode(stream.getvalue()).decode()


def as_request(image: Image) -> dict:
    return {"type": "base64", "value": to_base64(image)}


def box(x0, y0, x1, y1) -> dict:
    return {"box": {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2, "width": x1 - x0, "height": y1 - y0}}


def point(x, y, *, positive=True) -> dict:
    return {"x": x, "y": y, "positive": positive}


def open_images(given, **settings):
    """The images of a request, by field; for one request, with processes of its own."""
    opener = ImageOpener(ServiceSettings(**settings), Workers(2, "test"))

    async def read():
        async with opener.opened(given) as opened:
            return opened

    try:
        return asyncio.run(read())
    finally:
        opener.close()


def embed(service, image=None, **fields):
    if image is not None:
        fields["image"] = as_request(image)
    return asyncio.run(service.embed(Sam2EmbeddingRequest.model_validate(fields)))


def segment(service, image=None, prompts=None, **fields):
    if image is not None:
        fields["image"] = as_request(image) if isinstance(image, Image) else image
    request = Sam2SegmentationRequest.model_validate({"prompts": prompts, **fields})
    return asyncio.run(service.segment(request))


def segment_together(service, requests):
    """Answers, or errors, of requests that come at once."""

    async def answer_all():
        parsed = [Sam2SegmentationRequest.model_validate(request) for request in requests]
        return await asyncio.gather(*map(service.segment, parsed), return_exceptions=True)

    return asyncio.run(answer_all())


def assert_same_masks(answer, expected):
    """The masks to the pixel; the confidence but for the rounding of another batch size."""
    for row, wanted in zip(answer.predictions, expected.predictions, strict=True):
        assert row.masks == wanted.masks
        assert row.confidence == pytest.approx(wanted.confidence, abs=1e-5)


PICTURE = picture()
PROMPTS = [box(10, 10, 60, 50), {"points": [point(40, 30)]}, box(2, 2, 20, 20)]


def library_call(executor, prompts, image=PICTURE, **options):
    """What the library answers itself."""
    request = Sam2SegmentationRequest(image=as_request(image), prompts=prompts)
    [embedding] = executor.embed([image])
    prompt_set = request.prompts.to_prompt_set(image.hw)
    return executor.segment([(embedding, prompt_set)], **options)[0]


def masks_of(prediction):
    return np.array([rle_to_mask(rle) for rle in prediction.rles])
