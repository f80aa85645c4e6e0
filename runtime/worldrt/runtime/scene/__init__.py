"""Pictures of a traffic scene that a model is conditioned on: boxes and road marks as cameras on a vehicle see them."""
