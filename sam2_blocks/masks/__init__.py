"""Masks in plain numpy: run lengths, outlines, boxes and `supervision.Detections`.

The reference for anything faster. The way of a mask: `rle` (exact), `polygons` (what people draw),
`boxes` (where it is), `stack` (all of a picture), `detections` (what leaves the library).

- to polygons: `tracing` (exact rings), `simplifying` (fewer corners), `bridging` (one ring a part),
  `crossings` (rings that touch or cross); and back: `filling`
- outlines as OpenCV has them: `outlines`, `opencv`
- many at once: `many`; of several detectors: `merging`; in parts of a picture: `windows`
- long loops that can be stopped: `stopping`
"""

from sam2_blocks.masks.rle import (
    CocoRle,
    Spans,
    coco_to_rle,
    mask_to_rle,
    masks_to_prediction,
    paste_prediction,
    rle_area,
    rle_crop,
    rle_iou,
    rle_paste,
    rle_to_box_xyxy,
    rle_to_coco,
    rle_to_mask,
    rle_to_spans,
    rles_to_boxes_xyxy,
    spans_to_rle,
    spread_prediction,
)

__all__ = [
    "CocoRle",
    "Spans",
    "coco_to_rle",
    "mask_to_rle",
    "masks_to_prediction",
    "paste_prediction",
    "rle_area",
    "rle_crop",
    "rle_iou",
    "rle_paste",
    "rle_to_box_xyxy",
    "rle_to_coco",
    "rle_to_mask",
    "rle_to_spans",
    "rles_to_boxes_xyxy",
    "spans_to_rle",
    "spread_prediction",
]
