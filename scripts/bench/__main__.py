"""``python -m scripts.bench``: the same as ``treestore bench``."""

from __future__ import annotations

import sys

from scripts.bench.main import run

if __name__ == "__main__":
    sys.exit(run())
