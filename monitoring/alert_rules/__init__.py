"""The alerts by what they watch, each derived from a use case's spec."""
