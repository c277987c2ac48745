"""Adapters and backbones on the Hugging Face hub: names, connection, manifest, download.

Nothing that is downloaded is executed: files are read by their known names only, and compared with
the sizes and hashes of a manifest.
"""
