"""Programs that measure: `python -m benchmarks.matfun.msign` runs one. Each ends in one call to `_program.main`."""

from spectrain._spinning import limit_spinning

limit_spinning()  # before torch loads: this file is imported before any program
