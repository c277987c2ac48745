"""Decoders, registered in `registry.py`; `docs/how-to/extending.md` shows how to add one."""
