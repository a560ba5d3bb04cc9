"""``python -m treestore.cli``."""

from treestore.cli.main import main

if __name__ == "__main__":
    main()
