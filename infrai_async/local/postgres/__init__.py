"""Run a real Postgres server: find its programs, start and stop it, and create and copy databases."""
