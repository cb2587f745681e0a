"""A real Postgres server: found, started, guarded, and its databases copied."""
