"""The sections of a report: in go runs that were read, out comes one part of the page each."""
