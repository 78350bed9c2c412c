"""Batches made in other processes: in go a source and its settings, out come the same batches as in this one."""
