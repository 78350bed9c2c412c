"""One run: in go a configuration and a job, out comes a folder with weights, metrics and all that resuming needs."""
