"""Networks: the world model, policies and inverse models."""
