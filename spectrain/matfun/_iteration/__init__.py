"""A fixed number of products: in go a batch and a schedule, out come results within the bounds of that schedule."""
