"""Pictures that are small to send and dear to read, for tests and the benchmark."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image as Pil

LARGE = (8000, 4000)


def repeated_scans(count: int, size: tuple[int, int] = LARGE) -> bytes:
    """A progressive JPEG whose last scan stands ``count`` times more."""
    buffer = io.BytesIO()
    Pil.new("RGB", size, (90, 90, 90)).save(buffer, "JPEG", progressive=True, quality=50)
    jpeg = buffer.getvalue()
    end = jpeg.rindex(b"\xff\xd9")
    starts = [i for i in range(len(jpeg) - 1) if jpeg[i : i + 2] == b"\xff\xda"]
    tables = jpeg.rfind(b"\xff\xc4", 0, starts[-1])
    scan = jpeg[tables if tables > starts[-2] else starts[-1] : end]
    return jpeg[:end] + scan * count + b"\xff\xd9"


def large_tile(side: int) -> bytes:
    """A 16x16 TIFF in one tile of ``side`` pixels, RGB: that is what it takes to read."""
    packer, row = zlib.compressobj(9), bytes(3 * side)
    tile = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    tags = [
        *((256, 4, 16), (257, 4, 16), (258, 3, 8), (259, 3, 8), (262, 3, 2), (277, 3, 3)),
        *((284, 3, 1), (322, 4, side), (323, 4, side), (324, 4, 0), (325, 4, len(tile))),
    ]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b""
    for tag, kind, value in tags:
        value = start if tag == 324 else value
        packed = struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<L", value)
        entries += struct.pack("<HHL", tag, kind, 1) + packed
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<L", 8) + directory + tile


def plain_text(size: tuple[int, int]) -> bytes:
    """A PPM picture written as words, which Pillow reads in Python."""
    width, height = size
    return b"P3 %d %d 255\n" % size + b"7 " * (3 * width * height)


def hostile_files() -> dict[str, bytes]:
    """One of each kind, and of some sizes, by name."""
    files = {f"scans {count}": repeated_scans(count) for count in (100, 180, 3_000, 30_000)}
    files |= {f"tile {side}": large_tile(side) for side in (8_192, 16_384, 26_704)}
    files["plain text"] = plain_text((1500, 1000))
    for mode, file_format in (("F", "TIFF"), ("I", "TIFF"), ("RGB", "WEBP"), ("P", "GIF")):
        files[f"{mode} {file_format}"] = of_mode(mode, file_format)
    return files


def of_mode(mode: str, file_format: str, size: tuple[int, int] = LARGE) -> bytes:
    """A blank picture of many pixels in few bytes."""
    buffer = io.BytesIO()
    options = {"compression": "tiff_deflate"} if file_format == "TIFF" else {}
    Pil.new(mode, size).save(buffer, file_format, **options)
    return buffer.getvalue()
