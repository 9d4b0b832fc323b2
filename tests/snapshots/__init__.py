"""The API, the tables and their rules as they were reviewed last: files in docs/, compared by a test.

`make snapshots` writes them anew.
"""

import difflib
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def differences(path: Path, now: str) -> str:
    """What has changed since the file was written, for a person; nothing: the file is as it should be."""
    was = path.read_text() if path.exists() else ""
    if was == now:
        return ""
    diff = difflib.unified_diff(was.splitlines(), now.splitlines(), f"docs/{path.name}", "now", lineterm="", n=1)
    said = "\n".join(list(diff)[:80])
    return f"docs/{path.name} is not what there is. If the change is meant, run `make snapshots`:\n{said}"
