"""What flows through a model, seen without a change: in go a model and names, out come values or their statistics."""
