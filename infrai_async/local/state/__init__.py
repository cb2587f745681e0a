"""The gateway's persistent state: its tables, stored in SQLite or in a shared Postgres."""
