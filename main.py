"""`uvicorn main:app`, run at the repository's root."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))  # also where only requirements.txt was installed

from orders.app import app_from_environment
from orders.settings import SettingsError

try:
    app = app_from_environment()
except SettingsError as error:
    sys.exit(f"The service can't start.\n{error}")
