"""All that a company writes: one folder for each use case, found by its `usecase.yaml`."""
