"""From raw events to a registered model: steps, the models they train, and the pipelines.

Steps are plain typed functions; kfp only wraps them. Nothing here serves or watches a model.
"""
