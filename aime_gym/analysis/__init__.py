"""Analysis of what a trained agent knows: diagnosis, beliefs, figures and videos."""
