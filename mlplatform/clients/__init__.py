"""One adapter for each service; only here are the services' SDKs imported."""
