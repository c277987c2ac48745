"""Data sets by name: what each is, where it comes from and how its files lie. Plain values."""
