"""What a run takes: steps, memory, disk, hours and money, computed without torch or a GPU."""
