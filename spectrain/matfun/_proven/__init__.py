"""A tolerance that is proven: in go a batch and a bound, out come results with errors, by the cheapest way."""
