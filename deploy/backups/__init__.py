"""Backups of the platform: what is copied, how it is checked, and how it comes back."""
