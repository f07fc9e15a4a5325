"""The Feast repository: what the use cases declare, and the exact point-in-time join behind it."""
