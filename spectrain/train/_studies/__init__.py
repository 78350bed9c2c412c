"""Several runs compared: in goes a study, out come runs and a verdict."""
