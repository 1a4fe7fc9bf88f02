"""Planes of float32 with a JSON header: what `map` answers. `frontend/API.md` describes it."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_gradwatch.recording.jsonsafe import json_safe


def encode(header: Mapping[str, Any], planes: Sequence[npt.NDArray[np.float32]]) -> bytes:
    """Return header and planes as one message.

    Args:
        header: Plain values.
        planes: Any shapes; written in order, row by row.
    """
    text = json.dumps(json_safe(header), ensure_ascii=False, allow_nan=False).encode(
        "utf-8", "replace"
    )
    text += b" " * (-len(text) % 4)
    data = [np.ascontiguousarray(each, "<f4").tobytes() for each in planes]
    return b"".join([struct.pack("<I", len(text)), text, *data])


def decode(message: bytes) -> tuple[dict[str, Any], npt.NDArray[np.float32]]:
    """Return the header and the planes of an answer, shape (stats, rows, bins).

    Example:
        >>> header = {"stats": ["max"], "shape": [1, 2]}
        >>> decode(encode(header, [np.array([[1.0, 2.0]], np.float32)]))[1].tolist()
        [[[1.0, 2.0]]]
    """
    (length,) = struct.unpack_from("<I", message)
    header: dict[str, Any] = json.loads(message[4 : 4 + length])
    planes = np.frombuffer(message, "<f4", offset=4 + length)
    return header, planes.reshape(len(header["stats"]), *header["shape"])
