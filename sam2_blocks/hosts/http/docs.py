"""What the OpenAPI page says about the bodies we read ourselves, with examples that run."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

# An 8x8 picture with a bright square; small enough to read, large enough to segment.
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAIElEQVR42mNgIBUwQqj///8jhBgZGRgYmHDpIF2C"
    "dAAAraEDCAiV+GwAAAAASUVORK5CYII="
)
IMAGE = {"type": "base64", "value": PICTURE}
BOX = {"box": {"x": 4, "y": 4, "width": 4, "height": 4}}
EXAMPLES: dict[str, dict[str, Any]] = {
    "embed": {"image": IMAGE, "image_id": "square"},
    "segment": {"image": IMAGE, "prompts": {"prompts": [BOX]}, "format": "rle"},
    "track": {"image": IMAGE, "prompts": [BOX], "format": "rle"},
    "frames": {"frames": [{"image": IMAGE}, {"image": IMAGE, "prompts": [BOX]}]},
    "inputs": {"inputs": {"image": IMAGE}},
    "pipeline": {
        "pipeline": {
            "pipeline_version": 1,
            "inputs": {"image": {"kind": "image"}},
            "steps": {
                "segment": {
                    "use": "sam2/segment@v1",
                    "with": {"image": "$inputs.image", "prompts": [{"box_xyxy": [2, 2, 6, 6]}]},
                }
            },
            "outputs": {"predictions": "$steps.segment.predictions"},
        },
        "inputs": {"image": IMAGE},
    },
}
EMBEDDING_ARRAYS = (
    "float32 image_embed (1, C, h/4, w/4), high_res_feats_0 (1, C/8, h, w) and high_res_feats_1 "
    "(1, C/4, h/2, w/2); int64 image_hw (2,)"
)
LOGIT_ARRAYS = (
    "float32 masks (N, H, W), logits above 0 where the mask is; low_res_masks (N, h, w); "
    "confidence (N,)"
)
STATUSES = {
    400: "The image cannot be read, or may not be fetched.",
    401: "The API key is missing or wrong.",
    404: "The image_id, session, model, block or pipeline is unknown.",
    409: "The image_id stands for other pixels already, or earlier frames are not answered yet.",
    413: "The request, or its answer, is too large.",
    422: "The request is malformed.",
    429: "The queue is full, or there are too many sessions; see Retry-After.",
    503: "The service is shutting down, or out of memory.",
    504: "The answer was not ready in time.",
}


class ErrorAnswer(BaseModel):
    """Every answer that is not 2xx."""

    message: str
    detail: Any = None


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the answers that are errors; all of them if none is named."""
    return {
        status: {"model": ErrorAnswer, "description": STATUSES[status]}
        for status in statuses or STATUSES
    }


def body_of(model: type[BaseModel], example: str) -> dict[str, Any]:
    """Describe a body that may be JSON or a multipart form.

    Args:
        model: what the JSON holds.
        example: name of one of `EXAMPLES`.

    Returns:
        What FastAPI takes as ``openapi_extra``.
    """
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    form = {
        "type": "object",
        "properties": {
            "image": {"type": "string", "format": "binary"},
            "request": {"type": "string", "description": "The other fields, as a JSON object."},
        },
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schema, "example": EXAMPLES[example]},
                "multipart/form-data": {"schema": form},
            },
        }
    }


def binary_answer(description: str, arrays: str) -> dict[str, Any]:
    """Describe an answer that is JSON, or npz with these arrays for format ``binary``."""
    text = f"npz, for format binary: {arrays}."
    npz = {"schema": {"type": "string", "format": "binary", "description": text}}
    return {"description": description, "content": {"application/octet-stream": npz}}


def describe_bodies(app: FastAPI, models: list[type[BaseModel]]) -> None:
    """Add the schemas of these models to the app's OpenAPI page."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            page = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _, schemas = models_json_schema(
                [(model, "validation") for model in models],
                ref_template="#/components/schemas/{model}",
            )
            page.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
            app.openapi_schema = page
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
