"""A small traffic simulation: a car that is driven, vehicles that follow lanes, people who walk beside them."""
