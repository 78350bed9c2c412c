"""Mixtures of experts: in go tokens, out comes the weighted sum of the experts chosen, and a balance of their loads."""
