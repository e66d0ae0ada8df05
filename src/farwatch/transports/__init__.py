"""Where request bytes come from and reply bytes go."""
