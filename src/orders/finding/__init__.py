"""Lists, one order, its history, exports and reports. Reads only, but for the sums of days that are over."""
