"""Objects in scenes: what a window shows of them, and the files that say where they are.

docs/detection_data.md has the formats, the rule of visibility, and what is refused or noted.
"""
