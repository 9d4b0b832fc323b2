"""How we talk to PostgreSQL: connections, threads, lanes, migrations, the embedded server. Knows no table of ours."""
