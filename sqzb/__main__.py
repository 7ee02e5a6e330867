"""Run the command line by `python -m sqzb`."""

from sqzb.cli import main

if __name__ == "__main__":
    main()
