#!/usr/bin/env python3
"""Send files to the service: `file-service send` from a checkout. Try `python scripts/send.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from file_service.commands import send

if __name__ == "__main__":
    send()
