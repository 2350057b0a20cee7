"""edge-t2t.toml and options in, the gate's settings out, with the folder that paths in the file start from."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.gate.settings import FILE, Given, Settings, settings_of


def read_settings(config: Path | None, options: Given, inconclusive: str | None) -> tuple[Settings, Path]:
    """
    Args:
        config: None takes `edge-t2t.toml` of the present folder where there is one, else the defaults.

    Raises:
        UsageError: no such file, no TOML, or a key or value that is not known.
    """
    path = config or Path(FILE)
    if config is None and not path.is_file():
        return settings_of({}, options, inconclusive), Path()
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    return settings_of(document, options, inconclusive, str(path)), path.parent
