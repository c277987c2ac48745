"""Reading named data sets: from their descriptions to scenes, with every check that files get."""
