"""HTTP without services: routes, parameters, the envelope, conditions, and which hosts are served."""
