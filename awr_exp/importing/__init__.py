"""Other people's files, made a Minari data set. Each format is a small module that reads a file as a table."""
