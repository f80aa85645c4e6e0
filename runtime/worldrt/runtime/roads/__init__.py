"""Roads of OpenDRIVE files: their lanes as paths to be driven, and their marks as lines to be drawn."""
