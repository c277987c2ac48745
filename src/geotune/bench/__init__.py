"""Compare methods: run a grid of recipes, estimate differences and costs, write tables."""
