"""Vectors to measure searches with: overlapping clusters, and ones that come from real texts."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from scripts.bench.data import law_file

Floats = NDArray[np.float32]

_TERMS = 4096
_SAMPLED = 20_000
_ROUNDS = 4
_CHUNK = 4096


def clouds(rows: int, dim: int, *, seed: int = 1, clusters: int = 200) -> Iterator[Floats]:
    """Gaussian clusters whose centres are about as far apart as rows of one cluster, in pieces.

    The squared distances within and between clusters differ by twice their spread: a query's
    nearest are in several clusters, and hardly nearer than thousands of others.
    """
    random = np.random.default_rng(seed)
    width = math.sqrt(2 * math.sqrt(8 * dim) / (2 * dim))
    centres = (random.standard_normal((clusters, dim)) * width).astype(np.float32)
    for start in range(0, rows, 50_000):
        some = min(50_000, rows - start)
        own = centres[random.integers(0, clusters, some)]
        yield own + random.standard_normal((some, dim), dtype=np.float32)


def texts(dim: int) -> Floats | None:
    """Latent semantic analysis of the D.C. Code: a vector for each node with a text of 20 words or
    more, in random order; None where the data directory has no such file."""
    path = law_file()
    if path is None:
        return None
    bags = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            words = re.findall(r"[a-z]{3,}", str(msgspec.json.decode(line).get("text", "")).lower())
            if len(words) >= 20:
                hashed = [zlib.crc32(word.encode()) % _TERMS for word in words]
                bags.append(np.bincount(hashed, minlength=_TERMS).astype(np.uint16))
    counts = np.stack(bags)
    random = np.random.default_rng(1)
    random.shuffle(counts)
    rarity = np.log(len(counts) / (1 + np.count_nonzero(counts, axis=0))).astype(np.float32)
    sample = _weighted(counts[:_SAMPLED], rarity)
    basis = random.standard_normal((_TERMS, dim)).astype(np.float32)
    for _ in range(_ROUNDS):
        basis = np.linalg.qr(sample.T @ (sample @ basis))[0].astype(np.float32)
    found = [
        _weighted(counts[start : start + _CHUNK], rarity) @ basis
        for start in range(0, len(counts), _CHUNK)
    ]
    vectors = np.concatenate(found)
    result: Floats = vectors[np.abs(vectors).sum(axis=1) > 0]
    return result


def _weighted(counts: NDArray[np.uint16], rarity: Floats) -> Floats:
    weights = np.log1p(counts.astype(np.float32)) * rarity
    lengths = np.sqrt((weights**2).sum(axis=1, keepdims=True))
    result: Floats = weights / np.maximum(lengths, np.float32(1e-9))
    return result
