"""Conditions for serving: a database that is up and has our tables, functions and statuses, and both neighbours'
addresses.
"""

import logging
import time
from datetime import timedelta

from orders.events.assign_sql import ASSIGN
from orders.events.feed_sql import FEED
from orders.events.purge_sql import PURGE
from orders.finding.past_sql import PASTS
from orders.order.document_sql import DOCUMENTS, PAGE, SEEN_DOCUMENTS
from orders.order.statuses import CANCELLED, Workflow, load_workflow, parse_workflow
from orders.order.statuses_sql import install_workflow, installed_workflow
from orders.postgres import embedded
from orders.postgres.connecting import dsn_from_parts
from orders.postgres.database import (
    DatabaseUnavailable,
    SchemaError,
    migrate,
    opened,
    require_schema,
    wait_until_up,
)
from orders.postgres.functions import install, missing
from orders.settings import Settings, SettingsError
from orders.stock.claim_sql import CLAIM
from orders.stock.intend_sql import INTEND
from orders.stock.settle_sql import SETTLE
from orders.webhooks.body_sql import EVENTS_TO_SEND
from orders.webhooks.record_sql import RECORD
from orders.webhooks.tick_sql import TICK

log = logging.getLogger(__name__)

FUNCTIONS = (
    *(CLAIM, INTEND, SETTLE, DOCUMENTS, SEEN_DOCUMENTS, PAGE),
    *(ASSIGN, FEED, PURGE, PASTS, TICK, EVENTS_TO_SEND, RECORD),
)
"""The functions that have to be in the database."""


def open_database(settings: Settings) -> str:
    """Wait until the database is up and has our tables and statuses. Returns its DSN. Blocks.

    Raises SettingsError if the database has another table of statuses than ours.
    """
    workflow = load_workflow(settings.orders_workflow)
    dsn = database_dsn(settings)
    while True:
        wait_until_up(dsn)
        try:
            if settings.orders_migrate_at_start:
                migrate(dsn)
                install_functions(dsn)
                set_workflow(dsn, workflow, replace=False)
            else:
                require_schema(dsn)
                require_functions(dsn)
            require_workflow(dsn, workflow, settings)
        except DatabaseUnavailable as error:
            log.warning("the database went away again: %s", error)
            time.sleep(0.2)
        else:
            return dsn


def install_functions(dsn: str) -> None:
    """Make the functions of this version that the database lacks. Functions of other versions stay.

    Raises SchemaError if this role may not make functions.
    """
    with opened(dsn) as connection:
        install(connection, FUNCTIONS)


def require_functions(dsn: str) -> None:
    """Raise SchemaError if functions are missing. For services that run without migration at start-up."""
    with opened(dsn) as connection, connection.cursor() as cursor:
        if missing(cursor, FUNCTIONS):
            raise SchemaError(
                "The database lacks functions of ours, and ORDERS_MIGRATE_AT_START is off. Run `orders migrate`."
            )


def set_workflow(dsn: str, workflow: Workflow, *, replace: bool, actor: str = "service") -> None:
    """Put the table of statuses into the database; without `replace` only if there is none. `actor`: for the audit.

    Raises SettingsError if orders have statuses that the new table lacks.
    """
    with opened(dsn) as connection:
        left_behind = install_workflow(connection, workflow, replace=replace, actor=actor)
    if left_behind:
        raise SettingsError(
            f"ORDERS_WORKFLOW: there are orders that are {' or '.join(left_behind)}, or on hold from there, which the "
            "new table does not have. Move them first, or keep the status."
        )


def require_workflow(dsn: str, workflow: Workflow, settings: Settings) -> None:
    """Raise SettingsError if the database has another table of statuses, and SchemaError if it has none."""
    with opened(dsn) as connection:
        installed = installed_workflow(connection)
    if installed is None:
        raise SchemaError(
            "The database's table of statuses is not set up yet. Run `orders migrate`, or start without "
            "ORDERS_MIGRATE_AT_START=false."
        )
    if not _is_same(installed, workflow):
        raise SettingsError(
            "ORDERS_WORKFLOW: the database's table of statuses is another than "
            f"{settings.orders_workflow or 'the built-in one'}. Set the file that is in use or, to use this one from "
            "now on, run `orders migrate` with it."
        )


def _is_same(installed: str, workflow: Workflow) -> bool:
    try:
        there = parse_workflow(installed)
    except ValueError:  # the table of a newer version, with something that this version doesn't know
        return False
    return (there.statuses, there.line) == (workflow.statuses, workflow.line)


def database_dsn(settings: Settings) -> str:
    """The DSN of the configured database, or of the embedded one, which is started."""
    if settings.database_url:
        return settings.database_url
    if settings.db_name:
        return dsn_from_parts(
            settings.db_name, settings.db_user, settings.db_password, settings.db_host, settings.db_port
        )
    return embedded.start(settings.orders_data_dir)


def require_neighbours(settings: Settings) -> tuple[str, str]:
    """The neighbours' base URLs. Raises SettingsError if one is not set."""
    if settings.catalog_url and settings.cart_url:
        return settings.catalog_url, settings.cart_url
    missing = " and ".join(
        name for name, url in (("CATALOG_URL", settings.catalog_url), ("CART_URL", settings.cart_url)) if not url
    )
    raise SettingsError(
        f"{missing}: not set. Set the base URL of the neighbour, in the environment or in .env; "
        "to try the service without any, run `orders dev`."
    )


def expiries(settings: Settings, workflow: Workflow) -> dict[str, timedelta]:
    """How long an order may stay in each status. Raises SettingsError for an unknown status, one that is there twice,
    or one that can't be cancelled.
    """
    found: dict[str, timedelta] = {}
    for text, stayed in settings.expiries:
        status = workflow.parse(text)
        if status is None:
            raise SettingsError(f"ORDERS_EXPIRE: there is no status {text!r}.")
        if status in found:
            raise SettingsError(f"ORDERS_EXPIRE: {status} is there twice.")
        if CANCELLED not in workflow.allowed(status):
            raise SettingsError(f"ORDERS_EXPIRE: an order that is {status} can't be {CANCELLED}.")
        found[status] = stayed
    return found
