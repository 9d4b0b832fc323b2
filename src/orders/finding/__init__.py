"""Lists, one order, its history, exports and reports. Only reads, except that it stores the sums of days
that are over.
"""
