"""Tuning methods, registered in `registry.py`; `docs/extending.md` shows how to add one."""
