"""The gateways behind the pages' snippets."""

from support.quick_postgres import postgres_does_not_wait_for_the_disk  # noqa: F401 - a fixture
