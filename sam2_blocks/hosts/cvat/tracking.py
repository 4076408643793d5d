"""A tracking function of CVAT: a shape on one frame is found again on those after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sam2_blocks.engine.plugins import load_plugins
from sam2_blocks.engine.resources import Resources
from sam2_blocks.executors import Tracker, TrackSession
from sam2_blocks.hosts.cvat.shapes import (
    load_sdk,
    picture_to_image,
    rle_to_shape,
    shape_to_prompt,
)
from sam2_blocks.values import Image

SHAPES = frozenset({"mask", "polygon", "rectangle"})


@dataclass(frozen=True)
class Followed:
    """A shape that is followed, by a session of its own.

    CVAT follows each shape from a frame of its own, and through as many as it likes. Frames are
    embedded once for all shapes on them.
    """

    session: TrackSession
    type: str


class Tracking:
    """A tracking function; see ``cvat_sdk.auto_annotation.TrackingFunction``.

    Args:
        tracker: what follows objects.

    Attributes:
        spec: the shapes it can follow.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._sdk = load_sdk()
        self._tracker = tracker
        self.spec = self._sdk.TrackingFunctionSpec(supported_shape_types=SHAPES)

    def preprocess_image(self, context: Any, image: Any) -> Image:
        """Read a frame."""
        return picture_to_image(image)

    def init_tracking_state(self, context: Any, pp_image: Image, shape: Any) -> Followed:
        """Begin to follow a shape.

        Args:
            context: not read.
            pp_image: the frame the shape is on.
            shape: CVAT's, with ``type`` and ``points``.

        Raises:
            ValueError: if it is no such shape, or outside of the frame.
        """
        prompt = shape_to_prompt(shape.type, list(shape.points), pp_image.hw)
        session = self._tracker.track()
        session.step(pp_image, [prompt])
        return Followed(session, shape.type)

    def track(self, context: Any, pp_image: Image, state: Followed) -> Any:
        """Find a shape on a further frame.

        Returns:
            A shape of the same type; None while the object is not seen.
        """
        tracks = state.session.step(pp_image)
        points = rle_to_shape(tracks.prediction.rles[0], state.type)
        if points is None or tracks.state[0] == "lost":
            return None
        return self._sdk.TrackableShape(type=state.type, points=points)


def create(
    model: str = "nano",
    device: str = "auto",
    dtype: str = "auto",
    *,
    resources: Resources | None = None,
) -> Tracking:
    """Make a tracking function.

    Args:
        model: name of a model, or path of a checkpoint.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dtype: ``auto``, ``float32``, ``bfloat16``, ``float16`` or ``int8``.
        resources: models to share; new ones if not given.

    Raises:
        ModelError: if it cannot be loaded, or cannot track.
        MissingExtraError: if cvat-sdk is not installed.
    """
    load_sdk()  # before a model is loaded
    resources = resources or load_plugins().resources()
    return Tracking(resources.model(model, Tracker, device=device, dtype=dtype))
