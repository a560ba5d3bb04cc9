"""``python -m scripts.bench``."""

from __future__ import annotations

from scripts.bench.main import main

if __name__ == "__main__":
    main()
