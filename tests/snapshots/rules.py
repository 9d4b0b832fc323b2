"""docs/triggers.md: what the database holds by itself, each rule with a sentence.

What there is comes from PostgreSQL's catalogs, and the sentences come from the page: whoever adds a rule writes one.
"""

import re
from typing import NamedTuple

from tests.conftest import execute
from tests.snapshots import DOCS

PATH = DOCS / "triggers.md"
MISSING = "(a sentence is missing)"
TITLE = """\
# What the database holds

These triggers, checks and unique keys hold for whoever writes: this version, an older replica, a person in `psql`. An
error of PostgreSQL names the rule. Foreign keys, `NOT NULL`, and primary keys that only count rows are not here:
[schema.sql](schema.sql) has all.

`make snapshots` writes the first two columns anew, and a test compares them with a migrated database. The sentences are
written here, by hand.
"""

_TRIGGERS = r"""
SELECT t.tgrelid::regclass::text, t.tgname,
       regexp_replace(pg_get_triggerdef(t.oid, true), '^CREATE TRIGGER \S+ (.*?) ON .*$', '\1'),
       ARRAY(SELECT DISTINCT format('`%s`', m[1])
             FROM regexp_matches(p.prosrc, 'CONSTRAINT = ''(\w+)''', 'g') m ORDER BY 1)
FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
WHERE NOT t.tgisinternal
"""
_CHECKS = """
SELECT c.conrelid::regclass::text, c.conname, pg_get_constraintdef(c.oid, true)
FROM pg_constraint c
WHERE c.contype = 'c' AND c.conrelid <> 0 AND c.connamespace = 'public'::regnamespace
"""
_KEYS = r"""
SELECT i.indrelid::regclass::text, n.relname,
       regexp_replace(pg_get_indexdef(i.indexrelid, 0, true), '^.* USING btree ', '')
FROM pg_index i JOIN pg_class n ON n.oid = i.indexrelid
WHERE i.indisunique AND n.relnamespace = 'public'::regnamespace
    AND i.indrelid::regclass::text <> 'orders_schema_version'
    AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
                    AND i.indisprimary AND a.attidentity <> '')
"""
_ROW = re.compile(r"^\| `(\w+)` \| .+ \| (.+) \|$")


class Rule(NamedTuple):
    table: str
    name: str
    what: str


def rules(dsn: str) -> list[Rule]:
    """What a database has, sorted by table: triggers, then checks, then unique keys."""
    triggers = [
        Rule(table, name, f"trigger {when.lower()}" + ("; errors: " if errors else "") + ", ".join(errors))
        for table, name, when, errors in execute(dsn, _TRIGGERS)
    ]
    checks = [Rule(table, name, f"`{what}`") for table, name, what in execute(dsn, _CHECKS)]
    keys = [Rule(table, name, f"unique `{what}`") for table, name, what in execute(dsn, _KEYS)]
    by_kind = [*sorted(triggers), *sorted(checks), *sorted(keys)]
    return sorted(by_kind, key=lambda rule: rule.table)


def sentences(page: str) -> dict[tuple[str, str], str]:
    """What the page says of each rule, by the rule's table and name."""
    found, table = {}, ""
    for line in page.splitlines():
        if line.startswith("## "):
            table = line[3:]
        elif row := _ROW.match(line):
            found[table, row[1]] = row[2]
    return found


def snapshot(dsn: str, page: str) -> str:
    """The page as it should be, with the sentences of the one that there is."""
    known, text, table = sentences(page), TITLE, ""
    for rule in rules(dsn):
        if rule.table != table:
            table = rule.table
            text += f"\n## {table}\n\n| Name | What it is | What it holds |\n|---|---|---|\n"
        what = " ".join(rule.what.split()).replace("|", "\\|")
        text += f"| `{rule.name}` | {what} | {known.get((table, rule.name), MISSING)} |\n"
    return text
