"""``python -m treestore.cli``."""

from treestore.cli import main

if __name__ == "__main__":
    main()
