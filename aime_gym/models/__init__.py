"""Networks: world model, policies, inverse models, discriminators."""
