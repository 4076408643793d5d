"""The process that decodes the pictures of strangers: small, bounded, and no loss when it dies.

A picture of a few kilobytes can take minutes or gigabytes to decode, in C code that nothing can
interrupt. Here it meets a bound of memory, where the system has one; `decoders` ends the process
when its time is up. It knows no model, no settings and no other request.

Over the pipes: a `QUESTION` and the file; then an `ANSWER`, and the text of an error, or the rows
of uint8 RGB pixels from the top.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image as Pil
from PIL import ImageOps, UnidentifiedImageError, features

from sam2_blocks.errors import ImageError
from sam2_blocks.formats.deep_colour import to_shallow_colour
from sam2_blocks.formats.images import open_picture, pil_to_bands
from sam2_blocks.values import UInt8Array

QUESTION = struct.Struct("!cQQ")
"""What is asked, `MEASURE` or `PIXELS`; the most pixels; how many bytes follow."""
ANSWER = struct.Struct("!cQQ")
"""What follows, one of the next; then height and width, or the bytes of a text and 0."""
READY = b"r"
"""Comes once, before all answers."""
MEASURE, PIXELS, REFUSED = b"s", b"p", b"e"
NO_MEMORY = b"m"
"""Refused like `REFUSED`, perhaps for lack of memory; with no text surely for that."""

FORMATS = (
    *("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"),
    *(["AVIF"] if find_spec("PIL.AvifImagePlugin") and features.check("avif") else []),
    *(["JPEG2000"] if features.check("jpg_2000") else []),
)
"""Those that Pillow reads without running another program, and as it was built."""
SMALL = 2**20
"""A picture of less pixels fails for no lack of memory."""
PLUGINS = [  # imported before there is a bound of memory; Pillow has the others at hand
    import_module(f"PIL.{plugin}ImagePlugin")
    for name, plugin in (
        ("TIFF", "Tiff"),
        ("WEBP", "WebP"),
        ("AVIF", "Avif"),
        ("JPEG2000", "Jpeg2K"),
    )
    if name in FORMATS
]
DEEP_COLOURS = import_module("cv2" if find_spec("cv2") else "av")
"""What reads colours of 16 bits, see `deep_colour`; imported by then, too."""
NOTHING = np.empty(0, np.uint8)
MAX_SCANS = 200
"""Progressive JPEG files have about ten; each costs a pass over the whole picture."""
START_OF_SCAN = b"\xff\xda"


def answer(question: bytes, max_pixels: int, content: bytes, out: BinaryIO) -> None:
    """Decode one picture, or only its header, and write the answer."""
    sent, npixels = False, 0
    try:
        _refuse_scans(content)
        with open_picture(
            content, label=f"image ({len(content)} bytes)", max_pixels=max_pixels, formats=FORMATS
        ) as picture:
            npixels = prod(picture.size)
            bands: Iterator[UInt8Array] = iter(())
            if question == PIXELS:
                picture = to_shallow_colour(picture)
                ImageOps.exif_transpose(picture, in_place=True)
                bands = pil_to_bands(picture)
            width, height = picture.size
            first = next(bands, NOTHING)
            sent = True
            out.write(ANSWER.pack(question, height, width))
            for band in chain([first], bands):
                out.write(band.data)
    except Exception as error:  # Pillow's parsers fail in many ways on broken files
        if sent:  # half a picture is no answer
            raise
        out.write(_refusal(error, npixels))


def _refusal(error: Exception, npixels: int) -> bytes:
    """Say what is wrong, and whether more memory may help: C code has its own words for that."""
    is_ours = isinstance(error, ImageError)
    text = str(error) if is_ours else f"cannot be decoded ({type(error).__name__})."
    is_sure = is_ours and not isinstance(error.__cause__, (OSError, SyntaxError, ValueError))
    is_sure |= isinstance(error.__cause__, UnidentifiedImageError) or 0 < npixels < SMALL
    if isinstance(error, MemoryError):
        text, is_sure = "", False
    encoded = text.encode("utf-8", "replace")
    return ANSWER.pack(REFUSED if is_sure else NO_MEMORY, len(encoded), 0) + encoded


def _refuse_scans(content: bytes) -> None:
    """Count the scans of a JPEG file: inside of their data the marker cannot stand."""
    scans = content.count(START_OF_SCAN) if content.startswith(b"\xff\xd8") else 0
    if scans > MAX_SCANS:
        raise ImageError(f"a JPEG file of {scans} scans, the limit is {MAX_SCANS}. Save it anew.")


def main(max_bytes: int) -> None:
    """Answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks
    Pil.preinit()
    _bound_memory(max_bytes)
    given, out = sys.stdin.buffer, sys.stdout.buffer
    out.write(READY)
    out.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # nobody reads what C code thinks of a file
    while len(head := given.read(QUESTION.size)) == QUESTION.size:
        question, max_pixels, nbytes = QUESTION.unpack(head)
        answer(question, max_pixels, given.read(nbytes), out)
        out.flush()


def _bound_memory(max_bytes: int) -> None:
    """Take no more than so many bytes beside what this process has now; not on every system."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + max_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
