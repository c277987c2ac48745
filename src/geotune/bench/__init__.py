"""Comparing methods: runs, what they cost, how sure a difference is, tables and figures."""
