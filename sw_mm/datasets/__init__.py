"""The libraries' data sets, with data roots that are checked when the data are read.

The classes live in one module a library, so that none is imported before its data set is used.
"""
