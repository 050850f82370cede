"""Several daemons that act as one, on an engine that people run anyway."""
