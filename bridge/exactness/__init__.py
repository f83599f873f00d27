"""Is a log-density that is called exact normalised, and do its samples follow it?"""
