"""From a registered, signed model to what Triton loads: verified, described, checkable.

`export` writes one immutable model repository for one version and one target. Nothing that was
not signed, or that is not the platform's kind of ONNX model, reaches a server.
"""
