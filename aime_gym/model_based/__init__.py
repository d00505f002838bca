"""Imitation through a world model: pretraining, filtering, action inference, imagination."""
