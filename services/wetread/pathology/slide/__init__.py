"""Reading slides: where native tiles lie, how they are decoded, and how regions are put together from them."""
