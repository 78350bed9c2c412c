"""Which columns say the rest: in goes a matrix and a rule, out come indices and the coefficients of the others."""
