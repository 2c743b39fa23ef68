"""What the page and the API do: plain functions. Layout says which control calls which."""
