"""`python -m reid_zoo` equals `reid-zoo`."""

from .cli.main import main

if __name__ == "__main__":
    main()
