"""The commands of `belated`, one file for those that belong together: options, what is run, what is said."""
