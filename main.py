"""The command line: `python main.py --help`."""

from pipeline.commands import app, main

__all__ = ["app"]

if __name__ == "__main__":
    main()
