"""The kinds of models that can be trained: one module each, looked up in `registry.KINDS`.

A kind knows how to fit, how to compute log-odds from what it saved, and how to say the same
in ONNX. It never reads files, never calibrates and never pickles.
"""
