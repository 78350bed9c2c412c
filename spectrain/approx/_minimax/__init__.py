"""Best approximation: in goes a problem, out comes a polynomial with an error from below and one from above."""
