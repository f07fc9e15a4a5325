"""The rollouts of a cluster: the same driver, acting through the Kubernetes API."""
