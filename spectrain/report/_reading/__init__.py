"""Files of a run: in goes a folder, out come its histories and measures, or what is wrong with them."""
