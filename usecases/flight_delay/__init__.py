"""Will this flight from New York be late? The reference use case; see README.md."""
