"""The one error that people are meant to read."""


class ClusterError(Exception):
    """Something is wrong with machine or cluster; the message is a sentence naming the fix."""
