"""The prediction log: rows from the gateways, kept through outages, archived exactly once."""
