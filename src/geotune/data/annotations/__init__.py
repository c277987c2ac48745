"""Object annotations: file formats, boxes in scenes, and their targets in windows.

`docs/reference/detection-data.md` describes the formats, which objects count in a window, and what
is an error or a note.
"""
