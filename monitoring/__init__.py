"""Watching what was served: names the cause first, and asks for retraining only where it helps."""
