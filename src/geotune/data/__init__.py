"""From files on disk to samples."""
