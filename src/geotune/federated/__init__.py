"""Train a recipe at several sites whose data stay where they are, with Flower (flower.ai)."""
