"""What is trained: in goes a configuration, out come model, data, loss and evaluation."""
