"""Several processes: in go matrices spread over ranks, out comes the same update as one process makes."""
