"""What the gateway remembers: the tables, in SQLite or in a shared Postgres."""
