"""The shared kernel: what every stage speaks. It knows no stage and imports none."""
