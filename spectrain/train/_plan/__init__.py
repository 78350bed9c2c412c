"""What a run will cost before it runs: in goes a configuration and a cluster, out come memory, bytes and seconds."""
