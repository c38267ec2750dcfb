"""Whether the router splits as commanded: every weight from 1 to 99 %, counted in answers."""
