"""The error with which the database says that a batch is no longer ours."""

import psycopg2.errors

_BATCH_IS_GONE = "OR001"  # raised by orders_require()


class BatchLost(Exception):
    """The batch is no longer ours: its lease ran out, and a recovering replica has taken it over."""


RETURN_AGAIN_AFTER = "interval '5 s'"


def named(error: psycopg2.Error) -> Exception:
    return BatchLost(str(error.diag.message_primary)) if error.pgcode == _BATCH_IS_GONE else error
