"""Top floor: training loops, strategies, data, engines, command line. Names load when they are asked for."""
