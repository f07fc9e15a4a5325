"""What a model was trained on: kept at registration, compared with what is served."""
