"""How matrices come in and go out: arrays of any kind become scaled batches of tensors, results take the way back."""
