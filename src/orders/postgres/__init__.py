"""How we talk to PostgreSQL: connections, threads, lanes, migrations, the embedded server. It knows no
table of ours.
"""
