"""What the soak programs share: settings from the environment, and lines that appear at once."""

import os
import sys

PREFIX = "FILE_SERVICE_"


def given() -> dict[str, str]:
    """The settings of the service that stand in the environment."""
    return {name.removeprefix(PREFIX).lower(): value for name, value in os.environ.items() if name.startswith(PREFIX)}


def say(line: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
