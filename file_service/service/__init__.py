"""What the product does, in its own words. Knows no HTTP and no settings."""
