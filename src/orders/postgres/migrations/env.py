"""Alembic's entry: all pending migrations in one transaction, one replica at a time."""

from alembic import context
from sqlalchemy import Engine, text

options = context.config.attributes
engine: Engine = options["engine"]

with engine.connect() as connection:
    context.configure(connection=connection, version_table=options["version_table"], transactional_ddl=True)
    with context.begin_transaction():
        options["begin"](connection.execute(text("SELECT pg_backend_pid()")).scalar())
        # The lock is the transaction's, not the session's, so that it also works through a pooler.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": options["lock"]})
        # Only from here on: a replica that waits for another to migrate is in nobody's way.
        connection.execute(text(f"SET LOCAL lock_timeout = {int(options['lock_timeout_ms'])}"))
        context.run_migrations()
