"""The pages that people see: the dashboard and the checkout."""
