"""Object annotations: file formats, boxes in scenes, and their targets in windows.

`docs/detection_data.md` describes the formats, which objects count in a window, and what is an
error or a note.
"""
