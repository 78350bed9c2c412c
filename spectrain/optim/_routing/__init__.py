"""Which algorithm takes which parameter, and why: in goes a model, out come groups with reasons."""
