"""The steps of the training half as plain functions: no kfp here, so each one runs in a test."""
