"""`uvicorn main:app`, run at the repository's root."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))  # also where only requirements.txt was installed

from orders.app import create_app
from orders.settings import SettingsError, load_settings

try:
    app = create_app(load_settings())
except SettingsError as error:
    sys.exit(f"The service can't start.\n{error}")
