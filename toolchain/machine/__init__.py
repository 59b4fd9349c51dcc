"""What vlmc finds around it: devices, packages, processes, a terminal, a cache folder."""
