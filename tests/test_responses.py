from __future__ import annotations

import pytest

from sam2_blocks.responses import (
    Sam2EmbeddingResponse,
    Sam2SegmentationPrediction,
    Sam2SegmentationResponse,
)


def test_a_response_flags_a_mask_without_prompt():
    prediction = Sam2SegmentationPrediction(masks=[[[0, 0], [1, 0], [1, 1]]], confidence=0.5)
    response = Sam2SegmentationResponse(predictions=[prediction], time=0.1)
    assert response.model_dump() == {
        "predictions": [
            {"masks": [[[0, 0], [1, 0], [1, 1]]], "confidence": 0.5, "format": "polygon"}
        ],
        "time": 0.1,
    }
    flagged = Sam2SegmentationResponse(predictions=[], time=0.1, unprompted=True)
    assert flagged.model_dump()["unprompted"] is True


def test_responses_carry_rle_and_ids():
    rle = {"size": [2, 2], "counts": "04"}
    prediction = Sam2SegmentationPrediction(masks=rle, confidence=1, format="rle")
    assert prediction.model_dump()["masks"] == rle
    embedded = Sam2EmbeddingResponse(image_id="x", time=0.1)
    assert embedded.model_dump() == {"image_id": "x", "time": 0.1}


def test_a_skipped_prompt_has_its_reason():
    prediction = Sam2SegmentationPrediction(masks=[], confidence=0, error="prompt 1: outside")
    assert prediction.model_dump()["error"] == "prompt 1: outside"
    hinted = Sam2SegmentationResponse(predictions=[], time=0.1, warnings=["every box lies"])
    assert hinted.model_dump()["warnings"] == ["every box lies"]


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_the_schema_describes_the_fields(mode):
    schema = Sam2SegmentationResponse.model_json_schema(mode=mode)
    names = {"predictions", "time", "unprompted", "inference_id", "warnings"}
    assert set(schema["properties"]) == names
