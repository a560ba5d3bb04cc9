"""faiss, imported in one place, and the few functions of it that are used here, typed.

What was learned from trying it (1.15):

* It starts a thread for each core inside many calls. ``omp_set_num_threads`` says otherwise for
  the calling thread alone, the environment for all, but only when the library is loaded: so the
  variable is set for the moment of the import, and other libraries find it as it was.
* All of its functions let the interpreter go while they run.
* While it is in a long search or training it asks Python whether somebody pressed Ctrl-C, and gives
  up with an error where that is so. Nobody here waits for that: the question is switched off.
* Its functions take pointers and believe them. The ones here check shape, type and order of bytes.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ordinals = NDArray[np.int64]
Flags = NDArray[np.bool_]

_THREADS: Final = "OMP_NUM_THREADS"


def _load() -> Any:
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    try:
        library: Any = importlib.import_module("faiss")
    finally:
        if before is None:
            del os.environ[_THREADS]
        else:
            os.environ[_THREADS] = before
    library.InterruptCallback.clear_instance()
    return library


faiss: Final[Any] = _load()
"""The library itself; its own types say too little to check anything by."""

VERSION: Final[str] = faiss.__version__
"""What an index was made with decides who can read it."""


def _check(array: NDArray[Any], dtype: type[np.generic], *shape: int) -> Any:
    """A pointer to the array's first element, which stays valid only as long as the array."""
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(f"expected {dtype.__name__}{shape}, got {array.dtype}{array.shape}")
    return faiss.swig_ptr(array)


def inner_products(query: Floats, vectors: Floats) -> Floats:
    """The products of one vector, shape (d,), with each row of (n, d), summed in any order."""
    rows, width = vectors.shape
    found = np.empty(rows, np.float32)
    faiss.fvec_inner_products_ny(
        faiss.swig_ptr(found),
        _check(query, np.float32, width),
        _check(vectors, np.float32, rows, width),
        width,
        rows,
    )
    return found


def squared_distances(query: Floats, vectors: Floats) -> Floats:
    """The squared distances of one vector, shape (d,), from each row of (n, d), in any order."""
    rows, width = vectors.shape
    found = np.empty(rows, np.float32)
    faiss.fvec_L2sqr_ny(
        faiss.swig_ptr(found),
        _check(query, np.float32, width),
        _check(vectors, np.float32, rows, width),
        width,
        rows,
    )
    return found


def inner_products_of(query: Floats, vectors: Floats, ordinals: Ordinals) -> Floats:
    """Like `inner_products`, for some rows only; they are read where they are."""
    rows, width = vectors.shape
    _check_range(ordinals, rows)
    found = np.empty(len(ordinals), np.float32)
    faiss.fvec_inner_products_by_idx(
        faiss.swig_ptr(found),
        _check(query, np.float32, width),
        _check(vectors, np.float32, rows, width),
        _check(ordinals, np.int64, len(ordinals)),
        width,
        1,
        len(ordinals),
    )
    return found


def squared_distances_of(query: Floats, vectors: Floats, ordinals: Ordinals) -> Floats:
    """Like `squared_distances`, for some rows only; they are read where they are."""
    rows, width = vectors.shape
    _check_range(ordinals, rows)
    found = np.empty(len(ordinals), np.float32)
    faiss.fvec_L2sqr_by_idx(
        faiss.swig_ptr(found),
        _check(query, np.float32, width),
        _check(vectors, np.float32, rows, width),
        _check(ordinals, np.int64, len(ordinals)),
        width,
        1,
        len(ordinals),
    )
    return found


def _check_range(ordinals: Ordinals, rows: int) -> None:
    if len(ordinals) and not (int(ordinals.min()) >= 0 and int(ordinals.max()) < rows):
        raise IndexError(f"ordinals from {ordinals.min()} to {ordinals.max()} of {rows} rows")
