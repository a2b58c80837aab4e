"""The user's data: pictures, captions, tags, buckets, caches, and the mix of instance and prior rows."""
