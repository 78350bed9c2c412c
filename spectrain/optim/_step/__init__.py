"""One step of one group: in go gradients, state and settings, out come new weights and state."""
