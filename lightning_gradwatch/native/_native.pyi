from typing import Any

import numpy as np
import numpy.typing as npt

def bind(capsule: Any, type: type, parameter: type, /) -> None: ...
def compare_weights(
    parameters: tuple[Any, ...],
    rows: npt.NDArray[np.void],
    copy: bytearray,
    known: npt.NDArray[np.uint8],
    sums: npt.NDArray[np.float64],
    keep: bool,
    /,
) -> list[int]: ...
def copy_weights(
    parameters: tuple[Any, ...],
    columns: npt.NDArray[np.intp],
    rows: npt.NDArray[np.void],
    exact: int,
    sketch: int,
    /,
) -> tuple[bytearray, int, list[int]]: ...
def count(
    tensor: Any, center: float, edge: float, dim: int, limit: int, /
) -> tuple[float, int, int, bytes | None] | None: ...
def describe(tensor: Any, /) -> tuple[Any, ...]: ...
def gradients(parameters: tuple[Any, ...], /) -> tuple[tuple[Any, ...], int]: ...
def norm(tensor: Any, limit: int, /) -> float | None: ...
def norms(
    grads: tuple[Any, ...], out: npt.NDArray[np.float64], p: int, limit: int, /
) -> list[int]: ...
def scale(grads: tuple[Any, ...], factor: float, limit: int, /) -> list[int]: ...
def versions(parameters: tuple[Any, ...], grads: tuple[Any, ...], /) -> int: ...
