"""`python -m geotune`."""

from geotune.cli import main

main()
