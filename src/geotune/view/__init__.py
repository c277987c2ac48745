"""A map in the browser, from a server on this machine."""
