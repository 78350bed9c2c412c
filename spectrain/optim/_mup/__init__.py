"""muP: in go a model and its base, out come the roles and factors of its parameters."""
