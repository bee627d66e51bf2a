"""Converters: public data sets into the log that `belated` reads, one file each."""
