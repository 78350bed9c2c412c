"""Files for all layers: written whole or not at all, read with suspicion; where caches stand. Standard library only."""
