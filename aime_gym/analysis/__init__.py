"""Analysis of trained agents: diagnosis, and videos of the world model's beliefs."""
