"""The shop: a seeded history of its first release, as years of deployments left it."""
