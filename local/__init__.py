"""The platform on one machine: starts the real servers and tells the story of the loop."""
