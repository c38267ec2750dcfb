"""The walker: every leaf of the CRD's schema, set to many values on a real API server.

Values come from the schema in ``crds/``; nothing here may list the fields of the resource except
``surroundings``, which says what a field needs beside it.
"""
