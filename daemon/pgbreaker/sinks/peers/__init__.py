"""What several daemons share, by an engine that is there already: Redis or Valkey."""
