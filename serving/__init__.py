"""From a registered model to answered requests: Triton, the gateway, the prediction log."""
