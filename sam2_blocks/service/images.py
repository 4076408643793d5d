"""The image of a request → the file that `decoders` decode, or refused with the field's name.

Nothing is unpickled, and no file is read but below the operator's folder. Arrays are BGR, as OpenCV
has them and clients send them.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
from PIL import Image as Pil

from sam2_blocks.errors import ImageError
from sam2_blocks.formats.images import array_to_image, pil_to_rgb
from sam2_blocks.requests import InferenceRequestImage
from sam2_blocks.service.errors import ImageRefusedError, RequestError, TooLargeError
from sam2_blocks.service.fetch import FetchLimits, fetch
from sam2_blocks.service.settings import ServiceSettings
from sam2_blocks.values import Image

NPY_HEADERS: dict[tuple[int, int], Callable[[io.BytesIO], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class ImageReader:
    """Gets at the images of requests; safe to call from several threads.

    Args:
        settings: which sources are switched on, and how large an image may be.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._limits = FetchLimits(
            max_bytes=settings.max_body_bytes,
            timeout_s=settings.url_timeout_s,
            allow_private=settings.allow_private_urls,
        )

    def fetch(self, image: InferenceRequestImage, field: str = "image") -> InferenceRequestImage:
        """Download an image given by its URL, as if it had been uploaded; others stay as they are.

        Raises:
            RequestError: if it may not be downloaded, or cannot; it starts with the field.
        """
        if image.type != "url":
            return image
        with naming(field):
            content = self._download(image.value)
        return InferenceRequestImage.model_construct(type="multipart", value=content)

    def unpack(self, image: InferenceRequestImage, field: str = "image") -> bytes | Image:
        """Return the encoded file of an image that needs no download any more.

        Returns:
            The bytes of a file that is still to be decoded; the image itself, where it came as
            pixels.

        Raises:
            RequestError: if it is not what it says, or may not be read; it starts with the field.
        """
        readers: dict[str, Callable[[Any], bytes | Image]] = {
            "base64": _from_base64,
            "multipart": _checked_bytes,
            "numpy": self._read_npy,
            "file": self._read_file,
            "pil": _from_pil,
            "numpy_object": _from_bgr,
        }
        with naming(field):
            return readers[image.type](image.value)

    def _download(self, url: Any) -> bytes:
        if not self._settings.allow_urls:
            raise ImageRefusedError("images from URLs are switched off here. Send the image.")
        return fetch(_text(url), self._limits)

    def _read_npy(self, value: Any) -> Image:
        if not self._settings.allow_numpy:
            raise ImageRefusedError("images of type 'numpy' are switched off here. Use base64.")
        content = value if isinstance(value, bytes) else _from_base64(value)
        return _from_bgr(_bytes_to_array(content))

    def _read_file(self, value: Any) -> bytes:
        root = self._settings.file_root
        if root is None:
            raise ImageRefusedError("images of type 'file' are switched off here. Use base64.")
        try:
            path = (root / _text(value)).resolve()
            inside = path.is_relative_to(root.resolve()) and path.is_file()
            size = path.stat().st_size if inside else 0
            if size > self._settings.max_body_bytes:
                raise TooLargeError(f"the file has {size} bytes, too many.")
            content = path.read_bytes() if inside else b""
        except (OSError, ValueError) as error:
            raise ImageRefusedError("the file cannot be read.") from error
        if not inside:
            raise ImageRefusedError("there is no such file below the folder of this service.")
        return content


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Scope in which errors about an image get the name of the field that it came in.

    Args:
        field: of the request, such as ``image`` or ``frames[2].image``.

    Raises:
        RequestError: that names the field, of the same class as the error inside.
    """
    try:
        yield
    except RequestError as error:
        raise type(error)(f"{field}: {error}") from error
    except ImageError as error:
        raise ImageRefusedError(f"{field}: {error}") from error


def _checked_bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ImageRefusedError(f"wants the bytes of a file, got {type(value).__name__}.")
    return value


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


def _from_base64(value: Any) -> bytes:
    """Decode base64, with or without the ``data:…;base64,`` before it."""
    text = _text(value)
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise ImageRefusedError("a data URI must look like data:image/png;base64,…")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageRefusedError(f"is not base64: {error}.") from error


def _bytes_to_array(content: bytes) -> np.ndarray:
    """Read a ``.npy`` file of plain numbers; the header is not trusted with memory or objects."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        shape, fortran_order, dtype = NPY_HEADERS[version](stream)
        left = len(content) - stream.tell()
        if dtype != np.uint8 or left != prod(shape):
            raise ValueError(f"wants uint8, {prod(shape)} bytes, got {dtype}, {left} bytes")
        array = np.frombuffer(content, np.uint8, offset=stream.tell())
        shaped: np.ndarray = array.reshape(shape, order="F" if fortran_order else "C")
    except (KeyError, ValueError, TypeError, EOFError, SyntaxError) as error:
        raise ImageRefusedError(f"is not a .npy file of a uint8 array ({error}).") from error
    return shaped


def _from_pil(picture: Any) -> Image:
    if not isinstance(picture, Pil.Image):
        raise ImageRefusedError(f"wants a Pillow picture, got {type(picture).__name__}.")
    return Image(pil_to_rgb(picture))


def _from_bgr(array: Any) -> Image:
    image = array_to_image(array)
    return Image(np.ascontiguousarray(image.pixels[:, :, ::-1]), image.id)
