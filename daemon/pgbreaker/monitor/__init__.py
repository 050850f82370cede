"""What goes round asking: connections held, beats kept, slower probes scheduled.

Floor 3.
"""
