"""The table of statuses in the database, which decides. A replica installs it from its file."""

from orders.order.audit_sql import AuditEntry, add_audit
from orders.order.statuses import Workflow
from orders.postgres.database import Connection, transaction


def installed_workflow(connection: Connection) -> str | None:
    """The file whose table is in the database, or None if there is no table yet."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT document FROM order_workflow")
        row = cursor.fetchone()
        return row[0] if row else None


def install_workflow(connection: Connection, workflow: Workflow, *, replace: bool, actor: str = "service") -> list[str]:
    """Make this the table for all replicas at once. Without `replace`, only if there is no table yet. If it takes the
    place of another table, the audit says that `actor` did it.

    Returns the statuses that the new table lacks although orders have them, or are on hold from them. Then nothing is
    changed. Orders in a final status may keep it, and adopted orders any status.
    """
    if not replace and installed_workflow(connection) is not None:
        return []  # nothing is written: a standby could not write
    names = [status.name for status in workflow.statuses]
    with transaction(connection) as cursor:
        cursor.execute("LOCK TABLE order_workflow IN SHARE ROW EXCLUSIVE MODE; SELECT document FROM order_workflow")
        row = cursor.fetchone()
        if row and not replace:
            return []
        cursor.execute(_LEFT_BEHIND, {"names": names})
        left_behind = [status for (status,) in cursor]
        if not left_behind:
            cursor.execute(_INSTALL, _parameters(workflow))
            if row and row[0] != workflow.text:
                before, after = {"document": row[0]}, {"document": workflow.text}
                add_audit(cursor, AuditEntry(actor, "workflow_replaced", None, before, after))
        return left_behind


_LEFT_BEHIND = """
    SELECT status FROM order_statuses s
        WHERE NOT is_final AND status <> ALL (%(names)s)
          AND EXISTS (SELECT FROM orders o WHERE o.status = s.status AND NOT o.adopted)
    UNION
    SELECT held_from FROM orders
        WHERE status IN (SELECT status FROM order_statuses WHERE is_hold) AND held_from <> ALL (%(names)s)
          AND NOT adopted
    ORDER BY 1
"""

_INSTALL = """
    INSERT INTO order_workflow (document) VALUES (%(document)s)
        ON CONFLICT (is_only) DO UPDATE SET document = excluded.document, installed_at = now();
    DELETE FROM order_statuses;
    INSERT INTO order_statuses (status, position, label, description, allowed, is_hold, is_final, gives_stock_back)
        SELECT name, position - 1, label, description, string_to_array(allowed, '|'), is_hold, is_final, gives_back
        FROM unnest(%(names)s::text[], %(labels)s::text[], %(descriptions)s::text[], %(following)s::text[],
                    %(holds)s::boolean[], %(finals)s::boolean[], %(give_back)s::boolean[])
            WITH ORDINALITY s(name, label, description, allowed, is_hold, is_final, gives_back, position)
"""


def _parameters(workflow: Workflow) -> dict[str, object]:
    statuses = workflow.statuses
    return {
        "document": workflow.text,
        "names": [s.name for s in statuses],
        "labels": [s.label for s in statuses],
        "descriptions": [s.description for s in statuses],
        "following": ["|".join(s.following) for s in statuses],  # unnest takes no arrays of arrays; no name has a |
        "holds": [s.is_hold for s in statuses],
        "finals": [s.is_final for s in statuses],
        "give_back": [s.gives_stock_back for s in statuses],
    }
