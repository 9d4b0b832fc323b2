"""The application: its routes, what starts and stops with it, and errors as problem documents."""

import asyncio
import contextlib
import functools
import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orders import about, previews
from orders.access import audit_routes, key_routes
from orders.access.check import Access, tell_if_open
from orders.access.known_keys import KnownKeys
from orders.access.limiting import Limits
from orders.access.tokens import tokens_by
from orders.asyncapi import get_asyncapi
from orders.background import rounds, rounds_of_credentials, run_forever
from orders.changing import bulk_routes as changing_bulk_routes
from orders.changing import routes as changing_routes
from orders.changing.dry_run import ChangingDryRun
from orders.changing.service import Changing
from orders.events import message_routes, stream_routes
from orders.events import routes as events_routes
from orders.events.tail import Tails
from orders.finding import export_routes, report_routes
from orders.finding import routes as finding_routes
from orders.finding.service import Finding
from orders.machinery import Machinery, machinery
from orders.neighbours.concurrency import Learnt
from orders.openapi import describe_api
from orders.order.statuses import load_workflow
from orders.placing import bulk_routes as placing_bulk_routes
from orders.placing import routes as placing_routes
from orders.placing.checkout import Checkout
from orders.placing.dry_run import PlacingDryRun
from orders.placing.service import Placing
from orders.postgres.database import DatabaseUnavailable, SchemaError, with_defaults
from orders.settings import Settings, SettingsError, load_settings
from orders.settings.address import shown
from orders.settings.unknown import tell_unknown
from orders.startup import expiries, require_neighbours
from orders.version import VERSION
from orders.webhooks import delivery_routes, endpoint_routes
from orders.webhooks.addresses import Allowed
from orders.webhooks.endpoints import Webhooks
from orders.webhooks.resolving import Resolver
from orders.wire.addresses import Addresses
from orders.wire.checks import Doors, own_checks
from orders.wire.docs_pages import add_docs_pages
from orders.wire.edge import CORS, Edge
from orders.wire.failures import answer_with_problems
from orders.wire.gate import Check, Gate, pass_on
from orders.wire.operations import OPERATIONS, operation_id
from orders.wire.parameters import WITHOUT_PARAMETERS
from orders.wire.request_log import RequestLog
from orders.wire.serving import bound_connections, bound_uvicorn

log = logging.getLogger(__name__)


ROUTERS = (
    finding_routes.router,
    placing_routes.router,
    changing_routes.router,
    placing_bulk_routes.router,
    changing_bulk_routes.router,
    previews.router,
    events_routes.router,
    events_routes.head_router,
    stream_routes.router,
    message_routes.router,
    export_routes.router,
    report_routes.router,
    key_routes.router,
    audit_routes.router,
    endpoint_routes.router,
    delivery_routes.list_router,
    delivery_routes.router,
    about.router,
)


_TELLABLE = (SettingsError, SchemaError, DatabaseUnavailable)
"""Errors at start-up whose message is a sentence for the person who starts the service."""


def _lifespan(settings: Settings) -> Callable[[FastAPI], AbstractAsyncContextManager[dict[str, Any]]]:
    """The context that the app is served in: starts what it needs, and stops it at the end."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        tell_if_open(settings.orders_access)
        async with machinery(settings) as built:
            checkout = Checkout(built.database, built.carts, built.placement, settings)
            app.state.placing = Placing(checkout, PlacingDryRun(built.database, built.catalog, checkout))
            app.state.changing = Changing(
                built.database,
                built.workflow,
                settings.orders_require_if_match,
                ChangingDryRun(built.database, built.catalog, settings),
            )
            app.state.finding = Finding(built.database, built.workflow)
            app.state.machinery = built
            app.state.tails = Tails(built.feed)
            resolver = Resolver(Allowed(settings.webhook_targets))
            app.state.webhooks = Webhooks(built.database, built.webhooks, resolver, settings.orders_webhooks)
            await app.state.keys.open(built.database)
            of_credentials = rounds_of_credentials(app.state.keys, app.state.tokens, built.client)
            background = asyncio.create_task(run_forever((*rounds(built, settings), *of_credentials)))
            urls = shown(settings.catalog_url or ""), shown(settings.cart_url or "")
            log.info("ready: the catalog is %s, the carts are %s", *urls)
            try:
                yield {"before_draining": built.feed.close}
            finally:
                background.cancel()
                resolver.close()

    return lifespan


def create_app(settings: Settings, checks: Sequence[Check] = ()) -> FastAPI:
    """The service. `checks` are asked of every request after the service's own, and before its limits.

    Raises SettingsError before anything is started, and TableIncomplete: a route or an operation is missing.
    """
    require_neighbours(settings)
    workflow = load_workflow(settings.orders_workflow)
    expiries(settings, workflow)
    if settings.database_url:
        with_defaults(settings.database_url)  # raises SettingsError for a bad address

    app = FastAPIOffline(
        title="Orders",
        summary="Places orders that are never oversold, never lost and never doubled.",
        version=VERSION,
        lifespan=_lifespan(settings),
        generate_unique_id_function=operation_id,
        license_info={"name": "MIT", "identifier": "MIT"},
        servers=[{"url": "/", "description": "This service"}],
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.router.lifespan = functools.partial(_start_plainly, app.router.lifespan)  # type: ignore[method-assign]
    # Not include_router: a router inside another one matches each request twice.
    app.router.routes[:0] = [route for router in ROUTERS for route in router.routes]
    _add_pages_about_it(app)
    add_docs_pages(app)
    answer_with_problems(app)
    app.state.keys = KnownKeys()  # before the database is there: the lifespan opens it
    app.state.tokens = tokens_by(settings)
    kinds = (app.state.keys, app.state.tokens) if app.state.tokens else (app.state.keys,)
    access = Access(settings.orders_access, kinds)
    app.state.access = access
    _guard(app, settings, (access.check, *checks, Limits(settings).check))
    app.openapi = lambda: describe_api(app, workflow)  # type: ignore[method-assign]  # FastAPI's documented way to change it
    return app


def _guard(app: FastAPI, settings: Settings, checks: Sequence[Check]) -> None:
    """Let every request pass the gate. All routes are there; one that is added later is never asked."""
    own = own_checks(Doors(settings.hosts, settings.origins))
    gate = Gate(Addresses(app.routes, OPERATIONS), (*own, *checks))
    pass_on(app.router)
    app.add_middleware(Edge, gate=gate, log=RequestLog(wants_all=settings.orders_access_log))
    if settings.origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(settings.origins), **CORS)


async def _start_plainly(lifespan: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Report a failed start in one sentence if its error allows it. Starlette would send a stack trace."""

    async def say(message: Message) -> None:
        if isinstance(error := sys.exception(), _TELLABLE) and "message" in message:
            message = {**message, "message": f"The service can't start. {error}"}
        await send(message)

    await lifespan(scope, receive, say)


def app_from_environment() -> FastAPI:
    """The service by the settings in the environment. For server processes that build it themselves."""
    log_to_stderr()
    tell_unknown()
    bound_uvicorn()
    return _app_of_this_process()


def app_of_serve() -> FastAPI:
    """The service in a process of `orders serve`, which has already told which settings it does not know."""
    log_to_stderr()
    return _app_of_this_process()


def _app_of_this_process() -> FastAPI:
    settings = load_settings()
    bound_connections(settings)
    return create_app(settings)


def log_to_stderr() -> None:
    """Log our own lines to stderr. From libraries, log only warnings and errors."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy, level in (("alembic", logging.WARNING), ("uvicorn", logging.WARNING), ("stamina", logging.ERROR)):
        logging.getLogger(noisy).setLevel(level)


def _add_pages_about_it(app: FastAPI) -> None:
    @app.get(
        "/",
        summary="What this is",
        tags=["about"],
        responses={200: {"model": about.About, "description": "What it is"}, **about.REFUSED},
        dependencies=WITHOUT_PARAMETERS,
    )
    async def get_about() -> Any:
        """What this service is, and where to look."""
        return {
            "service": "orders",
            "version": VERSION,
            "description": "An order management service: it turns carts and item lists into orders.",
            "documentation": "/docs",
            "openapi": "/openapi.json",
            "asyncapi": "/asyncapi.json",
            "orders": "/orders",
            "health": "/health",
        }

    app.get("/asyncapi.json", include_in_schema=False)(get_asyncapi)

    @app.get("/health", summary="Whether it works", tags=["about"], responses=about.HEALTH_RESPONSES)
    async def get_health(request: Request) -> Any:
        """200 where the database answers; 503 where it does not, or has no room left. However busy the service is, this
        waits for nobody. Parameters are ignored here: probes send some.
        """
        built: Machinery = request.app.state.machinery
        await built.database.require_health()
        return {
            "status": "ok",
            "waiting_count": built.placement.waiting_count,
            "neighbours": {name: _capacity(learnt) for name, learnt in built.learning.learnt().items()},
        }


def _capacity(learnt: Learnt) -> dict[str, Any]:
    return {"concurrency": learnt.limit, "is_fragile": learnt.is_fragile}
