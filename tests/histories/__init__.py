"""Random histories of rollouts by the thousand, and bugs planted to see that they notice."""
