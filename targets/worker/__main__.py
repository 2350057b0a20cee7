"""Start a worker: `python -m targets.worker`."""

from targets.worker.worker import main

if __name__ == "__main__":
    main()
