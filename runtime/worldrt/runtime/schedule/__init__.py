"""Schedules: which latent frame is at which noise level on which row, what is evaluated on a row, and what it costs."""
