"""Tools of this repository, run as `python -m hack.NAME`; nothing here is shipped."""
