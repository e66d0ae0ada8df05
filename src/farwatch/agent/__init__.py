"""The process beside a stock client kernel that replays remote changes."""
