"""Models in formats that other programs run: ONNX, `torch.export`, the QGIS plugin Deepness."""
