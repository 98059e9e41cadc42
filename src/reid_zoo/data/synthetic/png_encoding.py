"""PNG files whose bytes do not depend on the machine's compression library.

Pillow compresses with whichever zlib it was built with (zlib, zlib-ng, …), and each of them gives other bytes for the
same pixels. The data set promises equal bytes everywhere, so the pixels are stored without compression, which costs
little: the sensor noise of the pictures hardly compresses.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

__all__ = ["encode_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LARGEST_STORED_BLOCK = 65535


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes an RGB picture as PNG with stored (uncompressed) deflate blocks.

    Args:
        pixels: Array of shape (height, width, 3), uint8.

    Returns:
        The bytes of the file: PNG (ISO/IEC 15948), filter 0 in every row, zlib stream (RFC 1950, 1951).
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)
    rows[:, 1:] = pixels.reshape(height, 3 * width)
    raw = rows.tobytes()
    stream = [b"\x78\x01"]
    for start in range(0, len(raw), _LARGEST_STORED_BLOCK):
        block = raw[start : start + _LARGEST_STORED_BLOCK]
        final = start + _LARGEST_STORED_BLOCK >= len(raw)
        stream.append(struct.pack("<BHH", final, len(block), len(block) ^ 0xFFFF) + block)
    stream.append(struct.pack(">I", zlib.adler32(raw)))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"".join(stream)) + _chunk(b"IEND", b"")
