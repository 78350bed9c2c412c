"""Where the matrices are: in goes a parameter of any shape, sharded or not, out come its matrices and back."""
