"""What the commands do. No printing; plain values out.

What takes seconds to import comes only after the files are known to be good."""
