"""What the documents take from the code, a file for each kind of it."""
