"""Why a request is not answered; each error carries the HTTP status that says the same.

Those that are a `ModelError`, too, end a run of a pipeline; others only fail its item.
"""

from __future__ import annotations

from typing import ClassVar

from sam2_blocks.errors import ModelError, Sam2BlocksError


class RequestError(Sam2BlocksError):
    """The request cannot be answered as it is."""

    status: ClassVar[int] = 422


class ImageRefusedError(RequestError):
    """The image of a request cannot be read, or may not be fetched."""

    status = 400


class PrivateAddressError(ImageRefusedError):
    """An image's URL leads to an address that is not public."""


class UnansweredError(ImageRefusedError):
    """The server of an image's URL does not answer now; it may later."""


class UnauthorizedError(RequestError):
    """The API key is missing or wrong."""

    status = 401


class ForbiddenError(RequestError):
    """Nobody may do this here, or not from where the request comes."""

    status = 403


class UnknownImageError(RequestError):
    """Nothing is kept under this ``image_id``."""

    status = 404


class UnknownTrackError(RequestError):
    """There is no such session, or none any more, or it is somebody else's."""

    status = 404


class UnknownNameError(RequestError):
    """There is no such block or pipeline."""

    status = 404


class UnknownModelError(RequestError, ModelError):
    """The model is not served here."""

    status = 404


class ImageConflictError(RequestError):
    """The ``image_id`` names other pixels already."""

    status = 409


class TrackConflictError(RequestError):
    """Earlier frames of the session are not answered yet."""

    status = 409


class TooLargeError(RequestError):
    """The request, or its answer, is larger than this service allows."""

    status = 413


class RunTooLargeError(TooLargeError, ModelError):
    """A step asks the model for more than this service allows; no later step is run."""


class BusyError(RequestError):
    """The queue is full; try again later."""

    status = 429
    retry_after_s: ClassVar[int] = 1


class ShuttingDownError(BusyError):
    """The service finishes what it has and takes nothing new."""

    status = 503


class StalledError(RequestError):
    """Nothing goes on any more; somebody should restart the service."""

    status = 503


class DeadlineError(RequestError):
    """The answer was not ready in time."""

    status = 504


class GivenUpError(RequestError, ModelError):
    """Nobody waits for the answer any more; no later step is run."""

    status = 503
