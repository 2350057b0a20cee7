"""What calibration raises when images or labels cannot be used as they are."""


class DataError(Exception):
    """Data that cannot be used: what was found, and what to do next."""
