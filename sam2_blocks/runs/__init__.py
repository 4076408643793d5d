"""A whole run: where items come from, where results go, and what an earlier run left."""
